//! Amounts of resources: what pods ask for and what nodes have.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use trireme_api::quantity::Quantity;

/// What upstream assumes for scoring when a container asks for nothing.
const DEFAULT_MILLI_CPU: i64 = 100;
const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

/// Amounts by resource name: `cpu` in thousandths, everything else in whole units.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Resources(pub(crate) BTreeMap<String, i64>);

type List = BTreeMap<String, ApiQuantity>;

impl Resources {
    pub(crate) fn from_list(list: Option<&List>) -> Self {
        let mut resources = Self::default();
        for (name, quantity) in list.into_iter().flatten() {
            let Ok(quantity) = Quantity::parse(&quantity.0) else { continue };
            let amount = if name == "cpu" { quantity.milli_value() } else { quantity.value() };
            resources.0.insert(name.clone(), amount);
        }
        resources
    }

    pub(crate) fn get(&self, name: &str) -> i64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let sum = self.0.entry(name.clone()).or_default();
            *sum = sum.saturating_add(*amount);
        }
    }

    pub(crate) fn subtract(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let sum = self.0.entry(name.clone()).or_default();
            *sum = sum.saturating_sub(*amount);
        }
    }

    fn raise_to(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let known = self.0.entry(name.clone()).or_default();
            *known = (*known).max(*amount);
        }
    }
}

/// What a pod asks for in all: its containers together, or its largest init step if that is more.
pub(crate) fn requests_of(pod: &Pod) -> Resources {
    total(pod, |container| {
        Resources::from_list(container.resources.as_ref().and_then(|resources| resources.requests.as_ref()))
    })
}

/// The same for scoring: containers that ask for no cpu or memory count with a small amount.
pub(crate) fn scored_requests_of(pod: &Pod) -> Resources {
    total(pod, |container| {
        let list = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        let mut requests = Resources::from_list(list);
        requests.0.retain(|name, _| name == "cpu" || name == "memory");
        requests.0.entry("cpu".to_owned()).or_insert(DEFAULT_MILLI_CPU);
        requests.0.entry("memory".to_owned()).or_insert(DEFAULT_MEMORY);
        requests
    })
}

fn total(pod: &Pod, requests: impl Fn(&Container) -> Resources) -> Resources {
    let Some(spec) = &pod.spec else { return Resources::default() };
    let mut sum = Resources::default();
    for container in &spec.containers {
        sum.add(&requests(container));
    }
    let (mut sidecars, mut largest) = (Resources::default(), Resources::default());
    for container in spec.init_containers.iter().flatten() {
        let own = requests(container);
        if container.restart_policy.as_deref() == Some("Always") {
            sum.add(&own);
            sidecars.add(&own);
            largest.raise_to(&sidecars);
        } else {
            let mut step = sidecars.clone();
            step.add(&own);
            largest.raise_to(&step);
        }
    }
    sum.raise_to(&largest);
    let whole = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    sum.0.extend(Resources::from_list(whole).0);
    sum.add(&Resources::from_list(spec.overhead.as_ref()));
    sum
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn init_containers_and_sidecars_count_as_upstream() {
        let asks = |cpu: &str| json!({"name": "c", "resources": {"requests": {"cpu": cpu, "memory": "1Ki"}}});
        let mut sidecar = asks("50m");
        sidecar["restartPolicy"] = json!("Always");
        let pod: Pod = serde_json::from_value(json!({"spec": {
            "containers": [asks("100m"), asks("0.2")],
            "initContainers": [sidecar, asks("400m")],
            "overhead": {"cpu": "1m"},
        }}))
        .unwrap();
        let requests = requests_of(&pod);
        assert_eq!(requests.get("cpu"), 451, "the init step with the sidecar is larger than all containers");
        assert_eq!(requests.get("memory"), 3 * 1024);
        let nothing: Pod = serde_json::from_value(json!({"spec": {"containers": [{"name": "c"}]}})).unwrap();
        assert_eq!(requests_of(&nothing), Resources::default());
        assert_eq!(scored_requests_of(&nothing).get("cpu"), DEFAULT_MILLI_CPU);
    }
}
