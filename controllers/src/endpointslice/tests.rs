//! Slices planned round by round.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::json;

use super::plan::{MOST, plan};
use crate::endpoints::tests::{pod, service};

struct World {
    service: Service,
    slices: Vec<Arc<EndpointSlice>>,
    made: usize,
}

impl World {
    fn new(service: Service) -> Self {
        Self { service, slices: Vec::new(), made: 0 }
    }

    /// Plans and carries out a round; tells how many slices were created, changed and deleted.
    fn round(&mut self, pods: &[Arc<Pod>]) -> (usize, usize, usize) {
        let node = |name: &str| {
            let node = json!({"metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": "z1"}}});
            serde_json::from_value::<Node>(node).ok().map(Arc::new)
        };
        let plan = plan(&self.service, pods, &self.slices, node);
        let mut changed = 0;
        for slice in plan.update {
            let at = self.slices.iter().position(|old| old.metadata.name == slice.metadata.name).unwrap();
            changed += usize::from(*self.slices[at] != slice);
            self.slices[at] = Arc::new(slice);
        }
        let (created, deleted) = (plan.create.len(), plan.delete.len());
        self.slices.retain(|slice| !plan.delete.iter().any(|gone| gone.metadata.name == slice.metadata.name));
        for mut slice in plan.create {
            self.made += 1;
            slice.metadata.name = Some(format!("web-{}", self.made));
            self.slices.push(Arc::new(slice));
        }
        (created, changed, deleted)
    }

    fn show(&self) -> String {
        let mut lines: Vec<String> = self
            .slices
            .iter()
            .map(|slice| {
                let ports: Vec<_> = slice.ports.iter().flatten().map(|port| port.port.unwrap().to_string()).collect();
                let endpoints = slice.endpoints.iter().flatten().map(|endpoint| {
                    let conditions = endpoint.conditions.as_ref().unwrap();
                    let mark = |on: Option<bool>, letter| if on == Some(true) { letter } else { "" };
                    let (ready, serving) = (mark(conditions.ready, "r"), mark(conditions.serving, "s"));
                    format!("{}{ready}{serving}{}", endpoint.addresses[0], mark(conditions.terminating, "t"))
                });
                format!("{}:{}", ports.join("+"), endpoints.collect::<Vec<_>>().join(","))
            })
            .collect();
        lines.sort();
        lines.join(" ")
    }
}

fn web() -> World {
    World::new(service(json!({"ports": [{"name": "http", "port": 80, "targetPort": "http"}]})))
}

#[test]
fn endpoints_come_change_and_go() {
    let mut world = web();
    assert_eq!(world.round(&[]), (1, 0, 0), "a placeholder");
    assert_eq!(world.round(&[]), (0, 0, 0));
    let pods = [pod("a 10.0.0.1 http=8080 ready"), pod("b 10.0.0.2 http=8080"), pod("c - http=8080")];
    assert_eq!(world.round(&pods), (0, 1, 0), "the placeholder is used");
    assert_eq!(world.show(), "8080:10.0.0.1rs,10.0.0.2");
    assert_eq!(world.round(&pods), (0, 0, 0));
    let going = [pod("a 10.0.0.1 http=8080 ready deleting"), pod("b 10.0.0.2 http=8080 failed")];
    assert_eq!(world.round(&going), (0, 1, 0));
    assert_eq!(world.show(), "8080:10.0.0.1st");
    let slice = &world.slices[0];
    let labels = slice.metadata.labels.clone().unwrap();
    assert_eq!(labels["kubernetes.io/service-name"], "web");
    assert_eq!(labels["endpointslice.kubernetes.io/managed-by"], "endpointslice-controller.k8s.io");
    let endpoint = &slice.endpoints.as_ref().unwrap()[0];
    assert_eq!((endpoint.zone.as_deref(), endpoint.node_name.as_deref()), (Some("z1"), Some("n1")));
    assert_eq!(world.round(&[]), (0, 1, 0));
    assert_eq!(world.show(), ":");
}

#[test]
fn pods_with_different_ports_get_different_slices() {
    let mut world = web();
    world.round(&[pod("a 10.0.0.1 http=8080 ready"), pod("b 10.0.0.2 http=9090 ready")]);
    assert_eq!(world.show(), "8080:10.0.0.1rs 9090:10.0.0.2rs");
    assert_eq!(world.round(&[pod("a 10.0.0.1 http=8080 ready")]), (0, 0, 1));
}

#[test]
fn slices_are_bounded_and_changes_touch_few() {
    let mut world = web();
    let all: Vec<_> = (0..250).map(|n| pod(&format!("p{n:03} 10.0.{}.1 http=80 ready", n))).collect();
    assert_eq!(world.round(&all).0, 3);
    let sizes: Vec<_> = world.slices.iter().map(|slice| slice.endpoints.as_ref().unwrap().len()).collect();
    assert_eq!(sizes, [MOST, MOST, 50]);
    assert_eq!(world.round(&all), (0, 0, 0));
    assert_eq!(world.round(&all[1..]), (0, 1, 0), "only the slice of the pod that went");
    let mut more = all[1..].to_vec();
    more.push(pod("new 10.1.0.1 http=80 ready"));
    assert_eq!(world.round(&more), (0, 1, 0), "the room is used");
}

#[test]
fn families_and_publishing_not_ready() {
    let mut world = World::new(service(json!({"ports": [{"port": 80}], "publishNotReadyAddresses": true,
        "ipFamilies": ["IPv6"], "clusterIP": "None"})));
    world.round(&[pod("a fd00::1"), pod("b 10.0.0.1 ready")]);
    assert_eq!(world.show(), "80:fd00::1r");
    assert!(world.slices[0].metadata.labels.clone().unwrap().contains_key("service.kubernetes.io/headless"));
    world.service = service(json!({"ports": [{"port": 80}]}));
    world.round(&[pod("a fd00::1"), pod("b 10.0.0.1 ready")]);
    assert_eq!(world.show(), "80:10.0.0.1rs", "the other family's slices go");
}
