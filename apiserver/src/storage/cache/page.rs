//! A part of a kind as it was at a revision, a page at a time.
//!
//! Nothing is kept from one page to the next, so whoever takes his time holds no memory: what has changed since is undone
//! with the window's former states. Once the window does not reach back to the revision, the store's history has to.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::{KindCache, Part, State};
use crate::storage::keys;
use crate::storage::object::Object;

/// How much one page looks at and takes; the cache takes no change meanwhile.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PageBound {
    /// Objects that are looked at.
    pub(crate) looks: usize,
    /// Objects that are taken.
    pub(crate) objects: usize,
}

/// Some objects in the order of their keys.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) objects: Vec<Arc<Object>>,
    /// The first key that the next page looks at; `None` after the last.
    pub(crate) next: Option<String>,
}

/// The first key after a key.
pub(crate) fn after(key: &str) -> String {
    format!("{key}\u{0}")
}

/// States at a revision of what has changed since; `None` of what was not there.
type Undone<'a> = BTreeMap<&'a str, Option<&'a Arc<Object>>>;

impl KindCache {
    /// The newest revision at which pages show this cache; `known` is one that the cache has reached.
    pub(crate) fn newest(&self, known: u64) -> u64 {
        known.max(self.state.read().last)
    }

    /// Whether pages at a revision can be had.
    pub(crate) fn reaches(&self, revision: u64) -> bool {
        revision >= self.state.read().floor
    }

    /// The objects of a part from a key on, as they were at a revision that the cache has reached; `keep` sees each once.
    /// `None` when the window does not reach back that far.
    pub(crate) fn page(
        &self,
        part: &Part,
        revision: u64,
        from: &str,
        bound: PageBound,
        keep: impl Fn(&Object) -> bool,
    ) -> Option<Page> {
        let state = self.state.read();
        let undone = state.undone(revision)?;
        let mut page = Page { objects: Vec::new(), next: None };
        let mut looked = 0;
        state.walk(part, from, &undone, |object| {
            if looked == bound.looks || page.objects.len() == bound.objects {
                page.next = Some(object.key.to_string());
                return false;
            }
            looked += 1;
            if part.name.as_deref().is_none_or(|name| name == object.name()) && keep(object) {
                page.objects.push(object.clone());
            }
            true
        });
        Some(page)
    }

    /// How many objects of a namespace, or of all, there were at a revision from a key on; `None` as above.
    pub(crate) fn count(&self, part: &Part, revision: u64, from: &str) -> Option<u64> {
        let state = self.state.read();
        let undone = state.undone(revision)?;
        let mut count = 0;
        state.walk(&Part { namespace: part.namespace.clone(), ..Part::default() }, from, &undone, |_| {
            count += 1;
            true
        });
        Some(count)
    }
}

impl State {
    fn undone(&self, revision: u64) -> Option<Undone<'_>> {
        if revision < self.floor {
            return None;
        }
        let mut undone = Undone::new();
        if self.last > revision {
            let start = self.window.partition_point(|change| change.revision <= revision);
            for change in self.window.range(start..) {
                let Some(object) = change.new.as_ref().or(change.old.as_ref()) else { continue };
                undone.entry(&object.key).or_insert(change.old.as_ref());
            }
        }
        Some(undone)
    }

    /// Goes through the objects of a part from a key on until told to stop. By node more may be seen than is on it.
    fn walk(&self, part: &Part, from: &str, undone: &Undone<'_>, mut visit: impl FnMut(&Arc<Object>) -> bool) {
        let (start, end) = bounds(part, from);
        let range = (Bound::Included(start.as_str()), end.as_deref().map_or(Bound::Unbounded, Bound::Excluded));
        if end.as_deref().is_some_and(|end| end <= start.as_str()) {
            return;
        }
        let mut former = undone.range::<str, _>(range).peekable();
        let mut look = |key: &str, now: Option<&Arc<Object>>| {
            // What is not there any more, or is on another node.
            while let Some((_, then)) = former.next_if(|(gone, _)| now.is_none() || **gone < key) {
                if then.is_some_and(|then| !visit(then)) {
                    return false;
                }
            }
            let Some(now) = now else { return true };
            match former.next_if(|(changed, _)| **changed == key) {
                Some((_, then)) => then.is_none_or(&mut visit),
                None => visit(now),
            }
        };
        let went_on = if let Some(node) = &part.node {
            let keys = self.by_node.get(node.as_str()).into_iter().flat_map(|keys| keys.range::<str, _>(range));
            keys.filter_map(|key| self.objects.get(key)).all(|object| look(&object.key, Some(object)))
        } else {
            self.objects.range::<str, _>(range).all(|(key, object)| look(key, Some(object)))
        };
        if went_on {
            look("", None);
        }
    }
}

/// First key, and the first one after the last.
fn bounds(part: &Part, from: &str) -> (String, Option<String>) {
    let (start, end) = match (&part.namespace, &part.name) {
        (Some(namespace), Some(name)) => {
            let key = keys::suffix(Some(namespace), name);
            let end = after(&key);
            (key, Some(end))
        }
        (Some(namespace), None) => (format!("{namespace}/"), Some(format!("{namespace}0"))),
        (None, _) => (String::new(), None),
    };
    (start.max(from.to_owned()), end)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::tests::{bounded, pod, put};
    use super::super::{Part, WindowBound};
    use super::*;

    const ALL: PageBound = PageBound { looks: usize::MAX, objects: usize::MAX };

    fn cache(events: usize) -> KindCache {
        bounded(WindowBound { events, bytes: usize::MAX })
    }

    fn at(cache: &KindCache, part: &Part, revision: u64) -> Option<Vec<String>> {
        let page = cache.page(part, revision, "", ALL, |o| {
            part.node.as_deref().is_none_or(|node| o.field(super::super::NODE_FIELD) == Some(node))
        })?;
        assert!(page.next.is_none());
        Some(page.objects.iter().map(|o| format!("{}@{}", o.key, o.revision)).collect())
    }

    #[test]
    fn what_has_changed_since_is_undone() {
        let cache = cache(8);
        cache.reset(vec![pod(&cache, "a/x", "n1", 2), pod(&cache, "a/y", "n2", 3)], 5);
        let all = Part::default();
        let [first, second] = ["n1", "n2"].map(|n| Part { node: Some(n.into()), ..Part::default() });
        let before = ["a/x@2", "a/y@3"];
        assert_eq!(at(&cache, &all, 5).unwrap(), before);
        put(&cache, "a/x", "n2", 6);
        put(&cache, "a/x", "n2", 7);
        cache.apply("a/y", None, 8);
        put(&cache, "a/w", "n1", 9);
        put(&cache, "b/z", "n1", 10);
        assert_eq!(at(&cache, &all, 5).unwrap(), before);
        assert_eq!(at(&cache, &all, 6).unwrap(), ["a/x@6", "a/y@3"]);
        assert_eq!(at(&cache, &all, 8).unwrap(), ["a/x@7"]);
        assert_eq!(at(&cache, &all, 10).unwrap(), ["a/w@9", "a/x@7", "b/z@10"]);
        assert_eq!(at(&cache, &first, 5).unwrap(), ["a/x@2"]);
        assert_eq!(at(&cache, &second, 5).unwrap(), ["a/y@3"]);
        assert_eq!(at(&cache, &first, 10).unwrap(), ["a/w@9", "b/z@10"]);
        let namespace = Part { namespace: Some("a".into()), ..Part::default() };
        assert_eq!(at(&cache, &namespace, 7).unwrap(), ["a/x@7", "a/y@3"]);
        assert_eq!(at(&cache, &Part { name: Some("y".into()), ..namespace }, 7).unwrap(), ["a/y@3"]);
        assert_eq!((cache.count(&all, 5, ""), cache.count(&all, 10, "a/x\0")), (Some(2), Some(1)));
        assert_eq!((cache.reaches(5), cache.reaches(4), at(&cache, &all, 4)), (true, false, None));
    }

    #[test]
    fn pages_end_where_they_are_bound_to_and_go_on_from_there() {
        let cache = cache(2);
        cache.reset((1..=9).map(|i| pod(&cache, &format!("a/{i}"), "", i)).collect(), 9);
        for bound in [PageBound { looks: 2, objects: 9 }, PageBound { looks: 9, objects: 2 }] {
            let (mut seen, mut from) = (Vec::new(), String::new());
            loop {
                let page = cache.page(&Part::default(), 9, &from, bound, |o| o.name() != "4").unwrap();
                assert!(page.objects.len() <= 2);
                seen.extend(page.objects.iter().map(|o| o.name().to_owned()));
                let Some(next) = page.next else { break };
                from = next;
            }
            assert_eq!(seen.concat(), "12356789");
        }
        for revision in 10..=12 {
            put(&cache, "a/5", "", revision);
        }
        assert!(cache.page(&Part::default(), 9, "", ALL, |_| true).is_none(), "the window is too short");
        assert_eq!(cache.newest(3), 12);
        let beyond = Part { namespace: Some("a".into()), ..Part::default() };
        assert!(cache.page(&beyond, 12, "b/x", ALL, |_| true).unwrap().objects.is_empty());
    }
}
