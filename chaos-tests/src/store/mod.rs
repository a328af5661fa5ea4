//! The store without an API server above it: members as processes of raftstore's test-only server. Under faults, clients and
//! watchers write down what they were told, and checkers judge it; `bench` is how fast it is beside etcd.
//!
//! | module | what it is |
//! |---|---|
//! | `history` | what was asked and told, and the file that keeps it |
//! | `model` | the store as it is meant to be |
//! | `evidence`, `check` | the exact checker: order by revision, state, real time |
//! | `watched` | the watch checker |
//! | `general` | a general checker of linearizability, which confirms the exact one on short windows |
//! | `verdict` | what they say together |
//! | `run` | groups of processes, clients, watchers, faults, the verdict |
//! | `sim` | the whole group in one thread, simulated: hundreds of seeds, each of which does the same again |
//! | `html` | the report of a run |

pub mod bench;
pub mod check;
pub mod evidence;
pub mod general;
pub mod history;
pub mod html;
pub mod model;
pub mod run;
pub mod sim;
#[cfg(test)]
mod simulated;
#[cfg(test)]
mod tests;
pub mod verdict;
pub mod watched;
