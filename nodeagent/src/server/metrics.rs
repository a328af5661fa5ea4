//! Metrics in Prometheus' text format.

use std::fmt::Write;
use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use super::About;
use crate::certificate::NodeCertificate;
use crate::pods::{Context, resources};

/// Pods, containers and what they use.
pub(super) async fn serve(State(context): State<Arc<Context>>, Extension(about): Extension<About>) -> Response {
    let certificate = certificate(&about.certificate);
    let text = tokio::task::spawn_blocking(move || collect(&context)).await.unwrap_or_default() + &certificate;
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

/// How long the certificate is still valid. It serves as client's and as server's alike; names as kubelets have them.
fn certificate(certificate: &NodeCertificate) -> String {
    let (not_before, not_after) = certificate.validity();
    let left = not_after - jiff::Timestamp::now().as_second();
    let mut out = String::new();
    for side in ["client", "server"] {
        let name = format!("kubelet_certificate_manager_{side}_ttl_seconds");
        let _ = writeln!(out, "# TYPE {name} gauge\n{name} {left}");
    }
    let name = "kubelet_certificate_manager_client_expiration_renew_errors";
    let _ = writeln!(out, "# TYPE {name} counter\n{name} {}", certificate.renewal_failures());
    let name = "trireme_certificate_lifetime_seconds";
    let _ = writeln!(out, "# TYPE {name} gauge\n{name} {}", not_after - not_before);
    out
}

fn collect(context: &Context) -> String {
    let views = context.register.all();
    let running = views.iter().flat_map(|view| view.containers.values()).filter(|c| c.running.is_some()).count();
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(out, "# TYPE kubelet_running_pods gauge\nkubelet_running_pods {}", views.len());
    let _ = writeln!(out, "# TYPE kubelet_running_containers gauge\nkubelet_running_containers {running}");
    let mut cpu = "# TYPE container_cpu_usage_seconds_total counter\n".to_owned();
    let mut memory = "# TYPE container_memory_working_set_bytes gauge\n".to_owned();
    for view in &views {
        let meta = &view.pod.metadata;
        let (namespace, pod) = (meta.namespace.as_deref().unwrap_or(""), meta.name.as_deref().unwrap_or(""));
        let base = resources::pod_cgroup(&context.config.cgroup_root, &view.pod);
        for (name, container) in &view.containers {
            let Some(id) = &container.running else { continue };
            let usage = context.cgroups.usage(&format!("{base}/{id}"));
            let labels = format!("{{container=\"{name}\",namespace=\"{namespace}\",pod=\"{pod}\"}}");
            let _ = writeln!(cpu, "container_cpu_usage_seconds_total{labels} {}", usage.cpu_ns as f64 / 1e9);
            let _ = writeln!(memory, "container_memory_working_set_bytes{labels} {}", usage.working_set_bytes);
        }
    }
    out + &cpu + &memory
}
