//! One server for trying clients by hand.
#![allow(clippy::unwrap_used)]
#[path = "../tests/wire/harness.rs"]
#[allow(dead_code, missing_docs)]
mod harness;

#[tokio::main]
async fn main() {
    let server = harness::Server::start().await;
    let out = std::env::args().nth(1).unwrap();
    std::fs::write(&out, server.kubeconfig("admin", &["system:masters"]).to_string()).unwrap();
    std::fs::write(format!("{out}.nobody"), server.kubeconfig("nobody", &[]).to_string()).unwrap();
    println!("{}", server.address);
    tokio::signal::ctrl_c().await.unwrap();
}
