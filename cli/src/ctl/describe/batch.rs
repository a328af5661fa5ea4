//! Jobs and cron jobs.

use serde_json::Value;

use super::super::time;
use super::template;
use super::writer::{Page, items, label_selector, or_unset, plain};

/// Longest list of completed indexes that is shown whole.
const INDEXES: usize = 50;

/// A job.
pub fn job(page: &mut Page, object: &Value) {
    let (spec, status) = (&object["spec"], &object["status"]);
    page.named(object);
    page.field(0, "Selector", &label_selector(&spec["selector"], ""));
    page.marked(object);
    page.controller(object);
    page.field_some(0, "Parallelism", &spec["parallelism"]);
    page.field(0, "Completions", &or_unset(&spec["completions"]));
    page.field_some(0, "Completion Mode", &spec["completionMode"]);
    page.field_some(0, "Suspend", &spec["suspend"]);
    page.field_some(0, "Backoff Limit", &spec["backoffLimit"]);
    page.field_some(0, "TTL Seconds After Finished", &spec["ttlSecondsAfterFinished"]);
    let (start, end) = (status["startTime"].as_str(), status["completionTime"].as_str());
    if let Some(start) = start {
        page.field(0, "Start Time", &time::long(start));
    }
    if let Some(end) = end {
        page.field(0, "Completed At", &time::long(end));
    }
    if let (Some(start), Some(Ok(end))) = (start, end.map(str::parse)) {
        page.field(0, "Duration", &time::age(Some(start), end));
    }
    deadline(page, spec);
    let count = |field: &str| status[field].as_i64().unwrap_or_default();
    let ready = status["ready"].as_i64().map(|ready| format!(" ({ready} Ready)")).unwrap_or_default();
    let counts =
        format!("{} Active{ready} / {} Succeeded / {} Failed", count("active"), count("succeeded"), count("failed"));
    page.field(0, "Pods Statuses", &counts);
    if spec["completionMode"] == "Indexed" {
        page.field(0, "Completed Indexes", &capped(&plain(&status["completedIndexes"])));
    }
    template::describe(page, &spec["template"]);
}

fn deadline(page: &mut Page, spec: &Value) {
    if let Some(seconds) = spec["activeDeadlineSeconds"].as_i64() {
        page.field(0, "Active Deadline Seconds", &format!("{seconds}s"));
    }
}

/// Indexes up to the first comma behind the limit.
fn capped(indexes: &str) -> String {
    match indexes.get(INDEXES..).and_then(|rest| rest.find(',')) {
        _ if indexes.is_empty() => "<none>".to_owned(),
        Some(comma) => format!("{}...", &indexes[..=INDEXES + comma]),
        None => indexes.to_owned(),
    }
}

/// A cron job.
pub fn cron_job(page: &mut Page, object: &Value) {
    let (spec, status) = (&object["spec"], &object["status"]);
    page.metadata(object);
    page.field(0, "Schedule", &plain(&spec["schedule"]));
    page.field(0, "Concurrency Policy", &plain(&spec["concurrencyPolicy"]));
    page.field(0, "Suspend", page.truth(&spec["suspend"]));
    page.field(0, "Successful Job History Limit", &or_unset(&spec["successfulJobsHistoryLimit"]));
    page.field(0, "Failed Job History Limit", &or_unset(&spec["failedJobsHistoryLimit"]));
    let starting = spec["startingDeadlineSeconds"].as_i64();
    page.field(0, "Starting Deadline Seconds", &starting.map_or("<unset>".to_owned(), |seconds| format!("{seconds}s")));
    let job = &spec["jobTemplate"]["spec"];
    let selector = &job["selector"];
    let selector = if selector.is_null() { "<unset>".to_owned() } else { label_selector(selector, "") };
    page.field(0, "Selector", &selector);
    page.field(0, "Parallelism", &or_unset(&job["parallelism"]));
    page.field(0, "Completions", &or_unset(&job["completions"]));
    deadline(page, job);
    template::describe(page, &job["template"]);
    let last = status["lastScheduleTime"].as_str();
    page.field(0, "Last Schedule Time", &last.map_or("<unset>".to_owned(), time::long));
    let active: Vec<String> = items(&status["active"]).map(|job| plain(&job["name"])).collect();
    page.field(0, "Active Jobs", &if active.is_empty() { "<none>".to_owned() } else { active.join(", ") });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_of_indexes_end_at_a_comma() {
        assert_eq!(capped(""), "<none>");
        assert_eq!(capped("1-3,7"), "1-3,7");
        let long = "1234,".repeat(20);
        assert_eq!(capped(&long), format!("{}...", "1234,".repeat(11)));
        assert_eq!(capped(&"1".repeat(80)), "1".repeat(80));
    }
}
