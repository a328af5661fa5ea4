//! Client libraries against a whole cluster, used as their documentation and examples use them: kube-rs, the official
//! Python client from PyPI, the official JavaScript client from npm, and kubectl; and rows of upstream's conformance list.
//!
//! Server-side apply is used by the JavaScript cases and by kubectl's; the tests of the API server are about it.

mod conformance;
mod kubectls;
mod masters;
mod node;
mod objects;
mod python;
mod runner;
mod sessions;
mod space;
mod watching;

use trireme_chaos_tests::Options;
use trireme_chaos_tests::suite::{self, Scenario};

const KUBE_RS: &[Scenario] = &[
    ("kube_rs_life_of_an_object", objects::life),
    ("kube_rs_patches", objects::patches),
    ("kube_rs_lists", objects::lists),
    ("kube_rs_deletes_collections", objects::collections),
    ("kube_rs_metadata_only", objects::metadata_only),
    ("kube_rs_dynamic_types_and_discovery", objects::dynamic),
    ("kube_rs_errors", objects::errors),
    ("kube_rs_watches_and_resumes", watching::watches),
    ("kube_rs_streaming_lists", watching::streaming_lists),
    ("kube_rs_reflectors", watching::reflectors),
    ("kube_rs_predicates", watching::predicate_filters),
    ("kube_rs_wait_conditions", watching::conditions),
    ("kube_rs_controller_with_finalizer", watching::controller),
    ("kube_rs_exec", sessions::exec),
    ("kube_rs_terminal", sessions::terminal),
    ("kube_rs_attach", sessions::attach),
    ("kube_rs_logs", sessions::logs),
    ("kube_rs_port_forward", sessions::port_forward),
    ("kube_rs_evictions", sessions::evictions),
    ("kube_rs_events", sessions::events),
    ("kube_rs_leader_election", sessions::leader_election),
];

const KUBECTL: &[Scenario] = &[("every_verb_of_the_oldest_and_the_newest_kubectl", kubectls::verbs)];

/// What kills comes last.
const LAST: &[Scenario] = &[
    ("informers_miss_and_duplicate_nothing_while_the_leader_dies", masters::leader_dies),
    ("namespaces_of_the_cases_are_gone", masters::nothing_is_left),
];

fn main() {
    let all: Vec<Scenario> = [KUBE_RS, python::CASES, node::CASES, KUBECTL, conformance::ROWS, LAST].concat();
    suite::main(&all, &Options { prefix: "c", ..Options::default() })
}
