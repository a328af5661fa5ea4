//! Quotas and limit ranges, alone and as parts of a namespace.

use serde_json::Value;

use super::writer::{Page, in_order, items, plain};

/// A quota.
pub fn quota(page: &mut Page, object: &Value) {
    page.named(object);
    scopes(page, 0, " * ", object);
    page.line(0, "Resource\tUsed\tHard");
    page.line(0, "--------\t----\t----");
    amounts(page, 0, object);
}

/// The quotas of a namespace.
pub fn quotas(page: &mut Page, quotas: &[Value]) {
    page.raw("\nResource Quotas\n");
    for quota in quotas {
        page.field(1, "Name", &plain(&quota["metadata"]["name"]));
        scopes(page, 1, "* ", quota);
        page.line(1, "Resource\tUsed\tHard");
        page.line(1, "--------\t---\t---");
        amounts(page, 1, quota);
    }
}

fn amounts(page: &mut Page, level: usize, quota: &Value) {
    for (name, hard) in in_order(&quota["status"]["hard"]) {
        let used = match plain(&quota["status"]["used"][name]) {
            used if used.is_empty() => "0".to_owned(),
            used => used,
        };
        page.line(level, &format!("{name}\t{used}\t{}", plain(hard)));
    }
}

fn scopes(page: &mut Page, level: usize, mark: &str, quota: &Value) {
    let mut scopes: Vec<String> = items(&quota["spec"]["scopes"]).map(plain).collect();
    if scopes.is_empty() {
        return;
    }
    scopes.sort();
    page.field(level, "Scopes", &scopes.join(", "));
    for scope in scopes {
        let about = match scope.as_str() {
            "Terminating" => {
                "Matches all pods that have an active deadline. These pods have a limited lifespan on a node before \
                 being actively terminated by the system."
            }
            "NotTerminating" => {
                "Matches all pods that do not have an active deadline. These pods usually include long running pods \
                 whose container command is not expected to terminate."
            }
            "BestEffort" => {
                "Matches all pods that do not have resource requirements set. These pods have a best effort quality \
                 of service."
            }
            "NotBestEffort" => {
                "Matches all pods that have at least one resource requirement set. These pods have a burstable or \
                 guaranteed quality of service."
            }
            _ => continue,
        };
        page.line(level, &format!("{mark}{about}"));
    }
}

const HEADS: [&str; 2] = [
    "Type\tResource\tMin\tMax\tDefault Request\tDefault Limit\tMax Limit/Request Ratio",
    "----\t--------\t---\t---\t---------------\t-------------\t-----------------------",
];

/// A limit range.
pub fn limit_range(page: &mut Page, object: &Value) {
    page.named(object);
    HEADS.iter().for_each(|head| page.line(0, head));
    limits(page, "", object);
}

/// The limit ranges of a namespace.
pub fn limit_ranges(page: &mut Page, ranges: &[Value]) {
    page.raw("\nResource Limits\n");
    HEADS.iter().for_each(|head| page.line(0, &format!(" {head}")));
    ranges.iter().for_each(|range| limits(page, " ", range));
}

fn limits(page: &mut Page, before: &str, range: &Value) {
    let fields = ["min", "max", "defaultRequest", "default", "maxLimitRequestRatio"];
    for limit in items(&range["spec"]["limits"]) {
        let all = fields.iter().flat_map(|field| limit[*field].as_object().into_iter().flatten());
        let mut names: Vec<&String> = all.map(|(name, _)| name).collect();
        names.sort();
        names.dedup();
        for name in names {
            let cell = |field: &&str| match plain(&limit[*field][name]) {
                text if text.is_empty() => "-".to_owned(),
                text => text,
            };
            let cells: Vec<String> = fields.iter().map(cell).collect();
            page.line(0, &format!("{before}{}\t{name}\t{}", plain(&limit["type"]), cells.join("\t")));
        }
    }
}
