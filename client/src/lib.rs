//! How components reach the API.

pub mod events;
pub mod informer;
pub mod kubeconfig;
pub mod leadership;
pub mod masters;
pub mod reconnect;
pub mod tls;
