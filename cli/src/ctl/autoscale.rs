//! `trictl autoscale`: a horizontal pod autoscaler for a workload.

use clap::Args;
use serde_json::{Value, json};
use trireme_api::quantity::Quantity;

use super::create::{How, Making, create_generated};
use super::errors::{CtlError, Result};
use super::generate::typed;
use super::manifest::Files;
use super::session::Session;
use super::targets::{self, Selection, Target};

/// Auto-scale a deployment, replica set, stateful set, or replication controller.
#[derive(Debug, Clone, Default, Args)]
pub struct AutoscaleArgs {
    /// TYPE NAME or TYPE/NAME
    pub words: Vec<String>,
    #[command(flatten)]
    pub files: Files,
    #[command(flatten)]
    pub how: How,
    /// The lower limit for the number of pods; negative leaves it to the server
    #[arg(long, default_value_t = -1, hide_default_value = true)]
    pub min: i32,
    /// The upper limit for the number of pods
    #[arg(long)]
    pub max: Option<i32>,
    /// Average CPU over all pods in percent of what they request; negative leaves it to the server
    #[arg(long, default_value_t = -1, hide_default_value = true)]
    pub cpu_percent: i32,
    /// Average CPU over all pods: 70% of what they request, or 500m
    #[arg(long, default_value = "", hide_default_value = true)]
    pub cpu: String,
    /// Average memory over all pods: 70% of what they request, or 200Mi
    #[arg(long, default_value = "", hide_default_value = true)]
    pub memory: String,
    /// Name of the autoscaler; without it that of the workload
    #[arg(long, default_value = "", hide_default_value = true)]
    pub name: String,
}

/// Runs the verb.
pub async fn run(session: &Session, args: &AutoscaleArgs) -> Result<()> {
    let Some(max) = args.max else { return Err(CtlError::plain("required flag(s) \"max\" not set")) };
    let metrics = checked(args, max)?;
    let (found, failures) = targets::resolve(session, &args.words, &args.files, &Selection::default()).await?;
    CtlError::gather(failures)?;
    if found.is_empty() {
        return Err(CtlError::plain("no objects passed to autoscale"));
    }
    for target in found {
        target.fetch(session).await?;
        let resource = &target.resource;
        if !resource.subresources.iter().any(|name| name == "scale") {
            let (kind, group, version, plural) = (&resource.kind, &resource.group, &resource.version, &resource.plural);
            return Err(CtlError::plain(format!(
                "cannot autoscale a {kind}: could not find scale subresource for {group}/{version}, Resource={plural} in \
                 discovery information"
            )));
        }
        let object = autoscaler(args, &target, max, &metrics);
        let done = if args.how.mode.client_only() { "created" } else { "autoscaled" };
        create_generated(session, object, &args.how, &Making { manager: "kubectl-autoscale", done, refusal: "" })
            .await?;
    }
    Ok(())
}

/// The metrics that the flags ask for, if all the flags make sense.
fn checked(args: &AutoscaleArgs, max: i32) -> Result<Vec<Value>> {
    if max < 1 {
        return Err(CtlError::plain(format!("--max=MAXPODS is required and must be at least 1, max: {max}")));
    }
    if max < args.min {
        return Err(CtlError::plain(format!(
            "--max=MAXPODS must be larger or equal to --min=MINPODS, max: {max}, min: {}",
            args.min
        )));
    }
    if args.cpu_percent > 0 && !args.cpu.is_empty() {
        return Err(CtlError::plain("--cpu-percent and --cpu are mutually exclusive"));
    }
    let metric = |name: &str, target: Value| json!({"type": "Resource", "resource": {"name": name, "target": target}});
    let mut metrics = Vec::new();
    if args.cpu_percent > 0 {
        metrics.push(metric("cpu", json!({"type": "Utilization", "averageUtilization": args.cpu_percent})));
    }
    for (name, text, unit) in [("cpu", &args.cpu, "m"), ("memory", &args.memory, "Mi")] {
        if !text.is_empty() {
            metrics.push(metric(name, amount(name, text.trim(), unit)?));
        }
    }
    Ok(metrics)
}

/// `70%`, `500m`, or a bare number of the usual unit.
fn amount(name: &str, text: &str, unit: &str) -> Result<Value> {
    if let Some(percent) = text.strip_suffix('%') {
        return match percent.parse::<i32>() {
            Ok(percent) if percent >= 0 => Ok(json!({"type": "Utilization", "averageUtilization": percent})),
            _ => Err(CtlError::plain(format!("invalid percentage value: {percent}"))),
        };
    }
    let full = if text.parse::<f64>().is_ok() { format!("{text}{unit}") } else { text.to_owned() };
    let amount =
        Quantity::parse(&full).map_err(|_| CtlError::plain(format!("invalid resource {name} value: {text}")))?;
    Ok(json!({"type": "AverageValue", "averageValue": amount.to_string()}))
}

fn autoscaler(args: &AutoscaleArgs, target: &Target, max: i32, metrics: &[Value]) -> Value {
    let name = if args.name.is_empty() { &target.name } else { &args.name };
    let mut object = typed("autoscaling/v2", "HorizontalPodAutoscaler", name);
    let resource = &target.resource;
    object["spec"] = json!({
        "scaleTargetRef": {"kind": resource.kind, "name": target.name, "apiVersion": resource.api_version()},
    });
    if args.min > 0 {
        object["spec"]["minReplicas"] = json!(args.min);
    }
    object["spec"]["maxReplicas"] = json!(max);
    if !metrics.is_empty() {
        object["spec"]["metrics"] = json!(metrics);
    }
    object["status"] = json!({"desiredReplicas": 0, "currentMetrics": null});
    object
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn amounts_have_units() {
        let read = |name: &str, text: &str, unit: &str| amount(name, text, unit).map(|value| value.to_string());
        assert_eq!(read("cpu", "70%", "m").unwrap(), r#"{"type":"Utilization","averageUtilization":70}"#);
        assert_eq!(read("cpu", "500", "m").unwrap(), r#"{"type":"AverageValue","averageValue":"500m"}"#);
        assert_eq!(read("memory", "1Gi", "Mi").unwrap(), r#"{"type":"AverageValue","averageValue":"1Gi"}"#);
        assert_eq!(amount("cpu", "x", "m").unwrap_err().reason_text(), "invalid resource cpu value: x");
        assert_eq!(amount("cpu", "-1%", "m").unwrap_err().reason_text(), "invalid percentage value: -1");
    }

    #[test]
    fn limits_are_checked() {
        let said = |args: AutoscaleArgs, max| checked(&args, max).unwrap_err().reason_text();
        let base = AutoscaleArgs { min: -1, cpu_percent: -1, ..AutoscaleArgs::default() };
        assert_eq!(said(base.clone(), 0), "--max=MAXPODS is required and must be at least 1, max: 0");
        assert!(said(AutoscaleArgs { min: 3, ..base.clone() }, 2).ends_with("max: 2, min: 3"));
        let both = AutoscaleArgs { cpu_percent: 5, cpu: "5%".into(), ..base.clone() };
        assert_eq!(said(both, 2), "--cpu-percent and --cpu are mutually exclusive");
        assert!(checked(&base, 1).unwrap().is_empty());
    }
}
