//! Which images go when the disk fills up: the kubelet's rules, as a pure function of what is there.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::store::Inner;
use super::{Image, ImageError, Store};

/// When images are removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GcPolicy {
    /// Nothing is removed below this use of the disk, in percent; 100 switches collection off.
    pub high_threshold_percent: u8,
    /// Images are removed until the use of the disk is down to this.
    pub low_threshold_percent: u8,
    /// Younger images stay.
    pub minimum_age: Duration,
    /// How often it is looked.
    pub period: Duration,
}

impl Default for GcPolicy {
    fn default() -> Self {
        GcPolicy {
            high_threshold_percent: 85,
            low_threshold_percent: 80,
            minimum_age: Duration::from_secs(120),
            period: Duration::from_secs(300),
        }
    }
}

impl GcPolicy {
    /// What is wrong with it, in upstream's words.
    ///
    /// # Errors
    /// When a threshold is no percentage, or they are the wrong way round.
    pub fn validate(&self) -> Result<(), String> {
        let (high, low) = (self.high_threshold_percent, self.low_threshold_percent);
        if high > 100 {
            return Err(format!(
                "invalid configuration: --image-gc-high-threshold {high} must be between 0 and 100, inclusive"
            ));
        }
        if low > 100 {
            return Err(format!(
                "invalid configuration: --image-gc-low-threshold {low} must be between 0 and 100, inclusive"
            ));
        }
        if low >= high {
            return Err(format!(
                "invalid configuration: --image-gc-low-threshold {low} must be less than --image-gc-high-threshold {high}"
            ));
        }
        Ok(())
    }
}

/// Room on the images' file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Size in bytes.
    pub capacity: u64,
    /// What is free, in bytes.
    pub available: u64,
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Bytes that have to become free; 0 while the disk has room.
    pub wanted: u64,
    /// Digests of the images to remove, in this order.
    pub remove: Vec<String>,
    /// Bytes that these images are counted for.
    pub freed: u64,
}

/// When each image was seen first and was in use last.
#[derive(Debug, Default)]
pub struct Ages {
    seen: HashMap<String, Age>,
}

#[derive(Clone, Copy, Debug)]
struct Age {
    first: Instant,
    used: Option<Instant>,
}

impl Ages {
    /// Notes what is there and in use now; forgets what is gone.
    pub fn observe(&mut self, images: &[Arc<Image>], in_use: &BTreeSet<String>, now: Instant) {
        self.seen.retain(|digest, _| images.iter().any(|image| image.digest == *digest));
        for image in images {
            let age = self.seen.entry(image.digest.clone()).or_insert(Age { first: now, used: None });
            if in_use.contains(&image.digest) {
                age.used = Some(now);
            }
        }
    }

    /// Which images go. `pinned` ones never do, nor do those in use.
    pub fn plan(
        &self,
        policy: &GcPolicy,
        disk: Disk,
        images: &[Arc<Image>],
        kept: &BTreeSet<String>,
        now: Instant,
    ) -> Plan {
        let available = disk.available.min(disk.capacity);
        if disk.capacity == 0 || policy.high_threshold_percent >= 100 {
            return Plan::default();
        }
        let used_percent = 100 - available * 100 / disk.capacity;
        if used_percent < u64::from(policy.high_threshold_percent) {
            return Plan::default();
        }
        let goal = disk.capacity / 100 * (100 - u64::from(policy.low_threshold_percent));
        let mut plan = Plan { wanted: goal.saturating_sub(available), ..Plan::default() };
        let mut candidates: Vec<(&Arc<Image>, Age)> = images
            .iter()
            .filter(|image| !kept.contains(&image.digest))
            .filter_map(|image| Some((image, *self.seen.get(&image.digest)?)))
            .filter(|(_, age)| now.saturating_duration_since(age.first) >= policy.minimum_age)
            .collect();
        // What was not used for longest goes first; among those never used, what came first.
        candidates.sort_by_key(|(_, age)| (age.used, age.first));
        for (image, _) in candidates {
            if plan.freed >= plan.wanted {
                break;
            }
            plan.freed += image.size;
            plan.remove.push(image.digest.clone());
        }
        plan
    }
}

impl Store {
    /// Digests of the images that archives of the folder brought: they come back by themselves, so they stay.
    pub fn pinned(&self) -> BTreeSet<String> {
        let names = self.archived();
        names.iter().filter_map(|name| self.resolve(name).ok().flatten()).map(|image| image.digest.clone()).collect()
    }

    /// Takes all names from these images and frees what no image needs. What `in_use` claims stays, as do pinned images: it is
    /// asked once nothing can arrive any more, since what was true when the digests were chosen may not be true now. Does
    /// nothing while an image is arriving.
    ///
    /// # Errors
    /// When the index or a file cannot be changed.
    pub async fn remove_images(
        &self,
        digests: &[String],
        in_use: impl FnOnce(&[Arc<Image>]) -> BTreeSet<String> + Send + 'static,
    ) -> Result<super::Collected, ImageError> {
        let (store, mut doomed) = (self.clone(), digests.iter().cloned().collect::<BTreeSet<String>>());
        let Ok(_alone) = self.inner.arriving.clone().try_write_owned() else { return Ok(super::Collected::default()) };
        super::store::blocking(move || {
            // In this order: who lets a pin go is in use already.
            let mut kept = store.inner.pinned();
            kept.extend(store.pinned());
            kept.extend(in_use(&store.list()));
            doomed.retain(|digest| !kept.contains(digest));
            store.inner.forget(&doomed)?;
            store.inner.collect_garbage(&|image| kept.contains(&image.digest))
        })
        .await
    }

    /// Keeps an image whatever happens to its names, until the guard is dropped.
    pub(super) fn pin(&self, image: &Image) -> Pin {
        *self.inner.pins.lock().entry(image.digest.clone()).or_default() += 1;
        Pin { inner: self.inner.clone(), digest: image.digest.clone() }
    }
}

/// Keeps an image, for whoever is about to use it.
pub struct Pin {
    inner: Arc<Inner>,
    digest: String,
}

impl std::fmt::Debug for Pin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Pin").field(&self.digest).finish()
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pins = self.inner.pins.lock();
        if let Some(count) = pins.get_mut(&self.digest) {
            *count -= 1;
            if *count == 0 {
                pins.remove(&self.digest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(digest: &str, size: u64) -> Arc<Image> {
        Arc::new(Image {
            digest: digest.into(),
            config_digest: format!("c{digest}"),
            config: Default::default(),
            layers: Vec::new(),
            size,
            repo_tags: Vec::new(),
            repo_digests: Vec::new(),
        })
    }

    fn set(digests: &[&str]) -> BTreeSet<String> {
        digests.iter().map(ToString::to_string).collect()
    }

    const FULL: Disk = Disk { capacity: 1000, available: 100 };

    #[test]
    fn nothing_goes_below_the_high_threshold() {
        let (now, images) = (Instant::now(), [image("a", 500)]);
        let mut ages = Ages::default();
        ages.observe(&images, &set(&[]), now);
        let later = now + Duration::from_secs(600);
        let policy = GcPolicy::default();
        let roomy = Disk { capacity: 1000, available: 160 };
        assert_eq!(ages.plan(&policy, roomy, &images, &set(&[]), later), Plan::default());
        // 85 % used is enough.
        let edge = Disk { capacity: 1000, available: 150 };
        assert_eq!(ages.plan(&policy, edge, &images, &set(&[]), later).remove, ["a"]);
        let off = GcPolicy { high_threshold_percent: 100, ..policy };
        assert_eq!(ages.plan(&off, FULL, &images, &set(&[]), later), Plan::default());
        let odd = Disk { capacity: 0, available: 5 };
        assert_eq!(ages.plan(&policy, odd, &images, &set(&[]), later), Plan::default());
    }

    #[test]
    fn the_longest_unused_go_first_and_only_as_many_as_needed() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let images = [image("old", 60), image("recent", 60), image("never", 60), image("busy", 60)];
        let mut ages = Ages::default();
        ages.observe(&images, &set(&["old", "busy"]), at(0));
        ages.observe(&images, &set(&["recent", "busy"]), at(300));
        let plan = ages.plan(&GcPolicy::default(), FULL, &images, &set(&["busy"]), at(600));
        // 200 of 1000 shall be free, 100 are: two of 60.
        assert_eq!(plan, Plan { wanted: 100, remove: vec!["never".into(), "old".into()], freed: 120 });
        let all = Disk { capacity: 1000, available: 0 };
        let plan = ages.plan(&GcPolicy::default(), all, &images, &set(&["busy"]), at(600));
        assert_eq!((plan.wanted, plan.freed, plan.remove.len()), (200, 180, 3));
    }

    #[test]
    fn young_images_stay() {
        let (now, images) = (Instant::now(), [image("a", 500)]);
        let mut ages = Ages::default();
        ages.observe(&images, &set(&[]), now);
        let policy = GcPolicy::default();
        assert!(ages.plan(&policy, FULL, &images, &set(&[]), now + Duration::from_secs(119)).remove.is_empty());
        assert_eq!(ages.plan(&policy, FULL, &images, &set(&[]), now + Duration::from_secs(120)).remove, ["a"]);
    }

    #[test]
    fn thresholds_are_checked() {
        assert_eq!(GcPolicy::default().validate(), Ok(()));
        let bad = GcPolicy { low_threshold_percent: 85, ..GcPolicy::default() };
        assert!(bad.validate().is_err_and(|why| why.contains("must be less than --image-gc-high-threshold 85")));
        assert!(GcPolicy { high_threshold_percent: 101, ..GcPolicy::default() }.validate().is_err());
    }
}
