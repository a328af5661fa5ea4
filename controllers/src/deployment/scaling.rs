//! Scaling a deployment whose template stays as it is. Pure.

use super::plan::{Planner, created};
use super::revision::{desired_annotation, max_annotation};
use super::view::{available, desired, is_recreate, max_surge, size};
use crate::pods;

impl Planner<'_> {
    /// Spreads the deployment's size over its sets: all to the only one in use, or to each in its proportion.
    pub(super) fn scale(&mut self) {
        let wanted = desired(self.deployment);
        if let Some(only) = self.active_or_latest() {
            self.resize(only, wanted);
            return;
        }
        if self.is_saturated() {
            let old: Vec<usize> = self.old().into_iter().filter(|at| size(&self.sets[*at]) > 0).collect();
            for at in old {
                self.resize(at, 0);
            }
        } else if !is_recreate(self.deployment) {
            self.scale_in_proportion();
        }
    }

    /// The one set that has replicas; with none, the present or else the latest; with several, none.
    fn active_or_latest(&self) -> Option<usize> {
        let active: Vec<usize> = (0..self.sets.len()).filter(|at| size(&self.sets[*at]) > 0).collect();
        match active[..] {
            [] => self.position_of_new().or_else(|| self.old().last().copied()),
            [only] => Some(only),
            _ => None,
        }
    }

    fn is_saturated(&self) -> bool {
        let wanted = desired(self.deployment);
        self.new_set().is_some_and(|set| {
            desired_annotation(set) == Some(wanted) && size(set) == wanted && available(set) == wanted
        })
    }

    fn scale_in_proportion(&mut self) {
        let mut active: Vec<usize> = (0..self.sets.len()).filter(|at| size(&self.sets[*at]) > 0).collect();
        let total: i32 = active.iter().map(|at| size(&self.sets[*at])).sum();
        let wanted = desired(self.deployment);
        let allowed = if wanted > 0 { wanted + max_surge(self.deployment) } else { 0 };
        let to_add = allowed - total;
        // The largest first; among equals the newer one grows and the older one shrinks.
        active.sort_by_key(|at| {
            let age = created(&self.sets[*at]).map_or(0, |time| time.as_second());
            (-size(&self.sets[*at]), if to_add > 0 { -age } else { age })
        });
        let mut added = 0;
        let mut sizes = Vec::new();
        for at in &active {
            let more = self.proportion(*at, to_add, added);
            sizes.push(size(&self.sets[*at]) + more);
            added += more;
        }
        for (i, at) in active.into_iter().enumerate() {
            // What rounding left over goes to the largest.
            let leftover = if i == 0 { to_add - added } else { 0 };
            self.resize(at, (sizes[i] + leftover).max(0));
        }
    }

    fn proportion(&self, at: usize, to_add: i32, added: i32) -> i32 {
        let set = &self.sets[at];
        if to_add == 0 || to_add == added {
            return 0;
        }
        let fraction = self.fraction(at);
        tracing::trace!(set = pods::name(&set.metadata), fraction, "scaling in proportion");
        let left = to_add - added;
        if to_add > 0 { fraction.min(left) } else { fraction.max(left) }
    }

    fn fraction(&self, at: usize) -> i32 {
        let set = &self.sets[at];
        let wanted = desired(self.deployment);
        if wanted == 0 {
            return -size(set);
        }
        let most = wanted + max_surge(self.deployment);
        let status = self.deployment.status.as_ref();
        let before = max_annotation(set).filter(|most| *most > 0);
        let before = before.or_else(|| status.and_then(|status| status.replicas)).filter(|most| *most > 0);
        let Some(before) = before else { return 0 };
        let exact = f64::from(size(set)) * f64::from(most) / f64::from(before);
        exact.round() as i32 - size(set)
    }
}
