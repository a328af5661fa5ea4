//! Validation of Jobs and CronJobs.

use super::common::{Errors, immutable, label_selector, non_negative, one_of};
use super::{cron, pod};
use crate::catalogue::UpdateOf;
use crate::field::{FieldError, Path};
use crate::names;
use crate::selector::LabelSelector;
use crate::value::{has, int, list, map, text, truth};
use serde_json::{Value, json};

const SPEC: Path<'static> = Path::new("spec");
/// Most pods that run at once in a job that counts them by index.
const MAX_INDEXED_PARALLELISM: i64 = 100_000;
const COUNTS: [&str; 7] = [
    "parallelism",
    "completions",
    "activeDeadlineSeconds",
    "backoffLimit",
    "ttlSecondsAfterFinished",
    "backoffLimitPerIndex",
    "maxFailedIndexes",
];
/// Longest name of a CronJob: its jobs append eleven characters.
const MAX_CRON_NAME: usize = 52;

/// A Job.
pub fn job(object: &Value, errors: &mut Errors) {
    let (metadata, spec) = (&object["metadata"], &object["spec"]);
    generated_selector(metadata, spec, errors);
    job_spec(spec, &SPEC, errors);
    let selector = &spec["selector"];
    if selector.is_object() {
        label_selector(selector, &SPEC.child("selector"), errors);
        let labels = map(&spec["template"]["metadata"], "labels");
        if LabelSelector::from_object(selector).is_ok_and(|s| !s.matches(labels)) {
            let (template, detail) = (SPEC.child("template"), "`selector` does not match template `labels`");
            let at = template.child("metadata");
            errors.push(FieldError::invalid(&at.child("labels"), Value::Object(labels.clone()), detail));
        }
    } else {
        errors.push(FieldError::required(&SPEC.child("selector"), ""));
    }
    let name = text(metadata, "name");
    if let Some(completions) = int(spec, "completions").filter(|n| *n > 0 && indexed(spec)) {
        let host = format!("{name}-{}", completions - 1);
        if !names::dns1123_label(&host).is_empty() {
            let detail = format!("will not able to create pod with invalid DNS label: {host}");
            errors.push(FieldError::invalid(&Path::new("metadata").child("name"), name, &detail));
        }
    }
}

fn indexed(spec: &Value) -> bool {
    text(spec, "completionMode") == "Indexed"
}

/// The labels that tell the pods of one job from all others are there, unless the user chose the selector.
fn generated_selector(metadata: &Value, spec: &Value, errors: &mut Errors) {
    if truth(spec, "manualSelector") || !spec["selector"].is_object() {
        return;
    }
    let (uid, name) = (text(metadata, "uid"), text(metadata, "name"));
    let labels = map(&spec["template"]["metadata"], "labels");
    let template = SPEC.child("template");
    let path = template.child("metadata");
    let path = path.child("labels");
    let expected = [
        ("batch.kubernetes.io/controller-uid", uid),
        ("batch.kubernetes.io/job-name", name),
        ("controller-uid", uid),
        ("job-name", name),
    ];
    for (key, want) in expected {
        let detail = format!("must be '{want}'");
        match labels.get(key).and_then(Value::as_str) {
            None => errors.push(FieldError::required(&path.key(key), &detail)),
            Some(given) if given != want => {
                errors.push(FieldError::invalid(&path.key(key), Value::Object(labels.clone()), &detail));
            }
            Some(_) => {}
        }
    }
    let expected: Value = expected.iter().map(|(key, want)| ((*key).to_owned(), json!(want))).collect();
    let selects = LabelSelector::from_object(&spec["selector"]);
    if selects.is_ok_and(|s| expected.as_object().is_some_and(|labels| !s.matches(labels))) {
        let detail = "`selector` not auto-generated";
        errors.push(FieldError::invalid(&SPEC.child("selector"), spec["selector"].clone(), detail));
    }
}

fn job_spec(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    non_negative(spec, path, &COUNTS, errors);
    completion(spec, path, errors);
    let manager = text(spec, "managedBy");
    if has(spec, "managedBy") {
        let at = path.child("managedBy");
        errors.extend(names::domain_prefixed_path(manager).iter().map(|e| FieldError::invalid(&at, manager, e)));
        if manager.len() > 63 {
            errors.push(FieldError::too_long(&at, 63));
        }
    }
    if has(spec, "podFailurePolicy") {
        failure_policy(spec, &path.child("podFailurePolicy"), errors);
    }
    if has(spec, "successPolicy") {
        success_policy(spec, &path.child("successPolicy"), errors);
    }
    replacement_policy(spec, path, errors);
    let template = path.child("template");
    pod::template(&spec["template"], &template, errors);
    let inner = template.child("spec");
    let at = inner.child("restartPolicy");
    match text(&spec["template"]["spec"], "restartPolicy") {
        "Always" => errors.push(FieldError::required(&at, "valid values: \"OnFailure\", \"Never\"")),
        policy if !matches!(policy, "OnFailure" | "Never") => {
            errors.push(FieldError::not_supported(&at, policy, &["OnFailure", "Never"]));
        }
        "OnFailure" if has(spec, "podFailurePolicy") => {
            let detail = "only \"Never\" is supported when podFailurePolicy is specified";
            errors.push(FieldError::invalid(&at, "OnFailure", detail));
        }
        _ => {}
    }
}

fn completion(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let mode = text(spec, "completionMode");
    if !matches!(mode, "" | "NonIndexed" | "Indexed") {
        errors.push(FieldError::not_supported(&path.child("completionMode"), mode, &["Indexed", "NonIndexed"]));
    }
    let (parallelism, failed) = (int(spec, "parallelism").unwrap_or(0), int(spec, "maxFailedIndexes"));
    match (indexed(spec), int(spec, "completions")) {
        (true, None) => {
            errors.push(FieldError::required(&path.child("completions"), "when completion mode is Indexed"));
        }
        (true, Some(completions)) => {
            if parallelism > MAX_INDEXED_PARALLELISM {
                let detail = "must be less than or equal to 100000 when completion mode is Indexed";
                errors.push(FieldError::invalid(&path.child("parallelism"), parallelism, detail));
            }
            if let Some(failed) = failed.filter(|failed| *failed > completions) {
                let detail = "must be less than or equal to completions";
                errors.push(FieldError::invalid(&path.child("maxFailedIndexes"), failed, detail));
            }
        }
        (false, _) => {
            for key in ["backoffLimitPerIndex", "maxFailedIndexes"] {
                if let Some(given) = int(spec, key) {
                    errors.push(FieldError::invalid(&path.child(key), given, "requires indexed completion mode"));
                }
            }
        }
    }
    if failed.is_some() && !has(spec, "backoffLimitPerIndex") {
        let detail = "when maxFailedIndexes is specified";
        errors.push(FieldError::required(&path.child("backoffLimitPerIndex"), detail));
    }
}

fn failure_policy(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let rules = list(&spec["podFailurePolicy"], "rules");
    let within = path.child("rules");
    if rules.is_empty() {
        errors.push(FieldError::required(&within, ""));
    } else if rules.len() > 20 {
        errors.push(FieldError::too_many(&within, rules.len(), 20));
    }
    for (i, rule) in rules.iter().enumerate() {
        let at = within.index(i);
        let action = text(rule, "action");
        if action == "FailIndex" && !has(spec, "backoffLimitPerIndex") {
            let detail = "requires the backoffLimitPerIndex to be set";
            errors.push(FieldError::invalid(&at.child("action"), action, detail));
        } else {
            one_of(rule, &at, "action", &["Count", "FailIndex", "FailJob", "Ignore"], errors);
        }
        let (codes, patterns) = (&rule["onExitCodes"], list(rule, "onPodConditions"));
        match (codes.is_object(), patterns.is_empty()) {
            (true, false) => {
                let detail = "specifying both OnExitCodes and OnPodConditions is not supported";
                errors.push(FieldError::invalid_as_a_whole(&at, detail));
            }
            (false, true) => {
                let detail = "specifying one of OnExitCodes and OnPodConditions is required";
                errors.push(FieldError::invalid_as_a_whole(&at, detail));
            }
            _ => {}
        }
        if codes.is_object() {
            exit_codes(codes, &spec["template"], &at.child("onExitCodes"), errors);
        }
        let conditions = at.child("onPodConditions");
        for (j, pattern) in patterns.iter().enumerate() {
            let at = conditions.index(j);
            let kind = text(pattern, "type");
            errors.extend(names::qualified_name(kind).iter().map(|e| FieldError::invalid(&at.child("type"), kind, e)));
            one_of(pattern, &at, "status", &["False", "True", "Unknown"], errors);
        }
    }
}

fn exit_codes(codes: &Value, template: &Value, path: &Path<'_>, errors: &mut Errors) {
    one_of(codes, path, "operator", &["In", "NotIn"], errors);
    let name = text(codes, "containerName");
    let known = ["containers", "initContainers"].iter().flat_map(|key| list(&template["spec"], key));
    if has(codes, "containerName") && !known.into_iter().any(|c| text(c, "name") == name) {
        let detail = "must be one of the container or initContainer names in the pod template";
        errors.push(FieldError::invalid(&path.child("containerName"), name, detail));
    }
    let values = list(codes, "values");
    let within = path.child("values");
    if values.is_empty() {
        errors.push(FieldError::invalid(&within, json!([]), "at least one value is required"));
    } else if values.len() > 255 {
        errors.push(FieldError::too_many(&within, values.len(), 255));
    }
    for (i, value) in values.iter().enumerate() {
        if *value == 0 && text(codes, "operator") == "In" {
            errors.push(FieldError::invalid(&within.index(i), 0, "must not be 0 for the In operator"));
        }
        if values[..i].contains(value) {
            errors.push(FieldError::duplicate(&within.index(i), value.clone()));
        } else if i > 0 && value.as_i64() < values[i - 1].as_i64() {
            errors.push(FieldError::invalid(&within, values.to_vec(), "must be ordered"));
        }
    }
}

fn success_policy(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let rules = list(&spec["successPolicy"], "rules");
    let within = path.child("rules");
    if !indexed(spec) {
        errors.push(FieldError::invalid(path, spec["successPolicy"].clone(), "requires indexed completion mode"));
    }
    if rules.is_empty() {
        errors.push(FieldError::required(
            &within,
            "at least one rules must be specified when the successPolicy is specified",
        ));
    } else if rules.len() > 20 {
        errors.push(FieldError::too_many(&within, rules.len(), 20));
    }
    for (i, rule) in rules.iter().enumerate() {
        let at = within.index(i);
        if !has(rule, "succeededCount") && !has(rule, "succeededIndexes") {
            let detail = "at least one of succeededCount or succeededIndexes must be specified";
            errors.push(FieldError::required(&at, detail));
        }
        let Some(all) = int(spec, "completions") else { continue };
        let given = rule.get("succeededIndexes").and_then(Value::as_str);
        let indexes = given.map(|given| indexes(given, all));
        if let (Some(given), Some(Err(why))) = (given, &indexes) {
            let detail = format!("error parsing succeededIndexes: {why}");
            errors.push(FieldError::invalid(&at.child("succeededIndexes"), given, &detail));
        }
        non_negative(rule, &at, &["succeededCount"], errors);
        let Some(count) = int(rule, "succeededCount") else { continue };
        for (most, of) in [
            (Some(all), "the number of specified completions"),
            (indexes.map(|i| i.unwrap_or(0)), "the number of indexes in the specified succeededIndexes field"),
        ] {
            if let Some(most) = most.filter(|most| count > *most) {
                let detail = format!("must be less than or equal to {most} ({of})");
                errors.push(FieldError::invalid(&at.child("succeededCount"), count, &detail));
            }
        }
    }
}

/// How many indexes a list such as `0-3,5` names; they have to rise and to be below the number of completions.
fn indexes(text: &str, completions: i64) -> Result<i64, String> {
    let (mut last, mut total) = (None, 0);
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let ends: Vec<&str> = part.split('-').collect();
        if ends.len() > 2 {
            let part = crate::field::quote(part);
            return Err(format!(
                "the fragment {part} violates the requirement that an index interval can have at most two parts separated by '-'"
            ));
        }
        let mut numbers = Vec::new();
        for end in ends {
            let shown = crate::field::quote(end);
            let number: i64 =
                end.parse().map_err(|_| format!("cannot convert string to integer for index: {shown}"))?;
            if number >= completions {
                return Err(format!("too large index: {shown}"));
            }
            numbers.push(number);
        }
        let (first, end) = (numbers[0], numbers[numbers.len() - 1]);
        let order = |a: i64, b: i64| format!("non-increasing order, previous: {a}, current: {b}");
        if numbers.len() == 2 && first >= end {
            return Err(order(first, end));
        }
        if let Some(last) = last.filter(|last| *last >= first) {
            return Err(order(last, first));
        }
        total += end - first + 1;
        last = Some(end);
    }
    Ok(total)
}

fn replacement_policy(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let policy = text(spec, "podReplacementPolicy");
    let at = path.child("podReplacementPolicy");
    if policy.is_empty() {
        return;
    }
    if has(spec, "podFailurePolicy") {
        if policy != "Failed" {
            errors.push(FieldError::not_supported(&at, policy, &["Failed"]));
        }
    } else if !matches!(policy, "Failed" | "TerminatingOrFailed") {
        errors.push(FieldError::not_supported(&at, policy, &["Failed", "TerminatingOrFailed"]));
    }
}

/// A change of a Job.
pub fn job_update(new: &Value, old: &Value, of: UpdateOf<'_>, errors: &mut Errors) {
    if of == UpdateOf::Status {
        let keys = ["active", "succeeded", "failed", "ready", "terminating"];
        non_negative(&new["status"], &Path::new("status"), &keys, errors);
        return;
    }
    let (new_spec, old_spec) = (&new["spec"], &old["spec"]);
    completions_update(new_spec, old_spec, errors);
    immutable(&new_spec["selector"], &old_spec["selector"], &SPEC.child("selector"), errors);
    template_update(new_spec, old, errors);
    for key in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"] {
        immutable(&new_spec[key], &old_spec[key], &SPEC.child(key), errors);
    }
}

/// The number of completions stays, but that an indexed job may grow and shrink together with its parallelism.
fn completions_update(new: &Value, old: &Value, errors: &mut Errors) {
    let path = SPEC.child("completions");
    if !indexed(new) {
        immutable(&new["completions"], &old["completions"], &path, errors);
    } else if new["completions"] != old["completions"]
        && has(new, "completions")
        && new["completions"] != new["parallelism"]
    {
        let detail = "can only be modified in tandem with spec.parallelism";
        errors.push(FieldError::invalid(&path, new["completions"].clone(), detail));
    }
}

/// The template stays, but that a suspended job that has not begun may be placed differently.
fn template_update(new: &Value, old: &Value, errors: &mut Errors) {
    let old_template = &old["spec"]["template"];
    let mut wanted = new["template"].clone();
    if truth(&old["spec"], "suspend") && !has(&old["status"], "startTime") {
        for key in ["annotations", "labels"] {
            if let Some(metadata) = wanted.get_mut("metadata") {
                crate::value::copy(metadata, &old_template["metadata"], key);
            }
        }
        for key in ["affinity", "nodeSelector", "tolerations", "schedulingGates"] {
            if let Some(spec) = wanted.get_mut("spec") {
                crate::value::copy(spec, &old_template["spec"], key);
            }
        }
    }
    immutable(&wanted, old_template, &SPEC.child("template"), errors);
}

/// A CronJob.
pub fn cron_job(object: &Value, errors: &mut Errors) {
    let (name, spec) = (text(&object["metadata"], "name"), &object["spec"]);
    let schedule = text(spec, "schedule");
    let at = SPEC.child("schedule");
    if schedule.is_empty() {
        errors.push(FieldError::required(&at, ""));
    } else {
        if let Err(why) = cron::check(schedule) {
            errors.push(FieldError::invalid(&at, schedule, &why));
        }
        if schedule.contains("TZ") {
            let detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
            errors.push(FieldError::invalid(&at, schedule, detail));
        }
    }
    non_negative(spec, &SPEC, &["startingDeadlineSeconds"], errors);
    time_zone(spec, errors);
    one_of(spec, &SPEC, "concurrencyPolicy", &["Allow", "Forbid", "Replace"], errors);
    let (job, template) = (&spec["jobTemplate"]["spec"], SPEC.child("jobTemplate"));
    let inner = template.child("spec");
    job_spec(job, &inner, errors);
    if has(job, "selector") {
        let detail = "`selector` will be auto-generated";
        errors.push(FieldError::invalid(&inner.child("selector"), job["selector"].clone(), detail));
    }
    if truth(job, "manualSelector") {
        errors.push(FieldError::not_supported(&inner.child("manualSelector"), true, &["nil", "false"]));
    }
    non_negative(spec, &SPEC, &["successfulJobsHistoryLimit", "failedJobsHistoryLimit"], errors);
    if name.len() > MAX_CRON_NAME {
        let detail = format!("must be no more than {MAX_CRON_NAME} characters");
        errors.push(FieldError::invalid(&Path::new("metadata").child("name"), name, &detail));
    }
}

fn time_zone(spec: &Value, errors: &mut Errors) {
    let Some(zone) = spec.get("timeZone").and_then(Value::as_str) else { return };
    let at = SPEC.child("timeZone");
    let detail = match zone {
        "" => "timeZone must be nil or non-empty string".to_owned(),
        local if local.eq_ignore_ascii_case("local") => {
            "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones".to_owned()
        }
        zone if !cron::is_zone(zone) => format!("unknown time zone {zone}"),
        _ => return,
    };
    errors.push(FieldError::invalid(&at, zone, &detail));
}
