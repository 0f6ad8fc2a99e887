//! Checks the alert rules and the dashboard in `docs/operations`: each metric and label that they name must exist.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use millstream_web::metrics;
use serde_json::Value;

/// The alert rules, and their tests.
const RULES: [&str; 2] = ["docs/operations/alerts.yml", "docs/operations/alerts_test.yml"];

/// The dashboard of Grafana.
const DASHBOARD: &str = "docs/operations/grafana.json";

/// The beginnings of the names of our metrics.
const OURS: [&str; 2] = ["millstream_", "process_"];

/// Labels that Prometheus adds to each series, and to alerts.
const ADDED: [&str; 2] = ["instance", "job"];

/// The labels of the samples of all metrics, by the names of the samples.
type Samples = BTreeMap<String, BTreeSet<&'static str>>;

/// Checks all files below `root`. `Err` has a line for each violation.
pub fn check(root: &Path) -> Result<(), String> {
    let samples = samples();
    let mut wrong = Vec::new();
    for file in RULES {
        let text = read(root, file)?;
        // A rule, or a test, ends where the next one begins.
        let parts = text.split("\n  - interval:").flat_map(|part| part.split("- alert: "));
        let used: usize = parts.map(|part| of_text(file, part, &samples, &mut wrong)).sum();
        if used == 0 {
            wrong.push(format!("{file}: no metric is found in it"));
        }
    }
    let dashboard: Value =
        serde_json::from_str(&read(root, DASHBOARD)?).map_err(|error| format!("{DASHBOARD}: {error}"))?;
    if of_dashboard(&dashboard, &samples, &mut wrong) == 0 {
        wrong.push(format!("{DASHBOARD}: no metric is found in it"));
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

fn read(root: &Path, file: &str) -> Result<String, String> {
    fs::read_to_string(root.join(file)).map_err(|error| format!("can't read {file}: {error}"))
}

fn samples() -> Samples {
    let mut samples = Samples::new();
    for metric in metrics() {
        let labels: BTreeSet<&str> = metric.labels.iter().copied().collect();
        if metric.kind == "histogram" {
            for suffix in ["_count", "_sum"] {
                samples.insert(format!("{}{suffix}", metric.name), labels.clone());
            }
            let bucket = labels.iter().copied().chain(["le"]).collect();
            samples.insert(format!("{}_bucket", metric.name), bucket);
        } else {
            samples.insert(metric.name, labels);
        }
    }
    samples
}

/// Checks the targets of all panels. Returns the number of metrics found.
fn of_dashboard(value: &Value, samples: &Samples, wrong: &mut Vec<String>) -> usize {
    match value {
        Value::Array(values) => values.iter().map(|value| of_dashboard(value, samples, wrong)).sum(),
        Value::Object(members) => {
            if let Some(expression) = members.get("expr").and_then(Value::as_str) {
                let legend = members.get("legendFormat").and_then(Value::as_str).unwrap_or_default();
                return of_text(DASHBOARD, &format!("{expression}\n{legend}"), samples, wrong);
            }
            if let Some(query) = members.get("query").and_then(Value::as_str) {
                return of_text(DASHBOARD, query, samples, wrong);
            }
            members.values().map(|value| of_dashboard(value, samples, wrong)).sum()
        }
        _ => 0,
    }
}

/// Checks a text with expressions and templates of labels. Returns the number of metrics found.
fn of_text(file: &str, text: &str, samples: &Samples, wrong: &mut Vec<String>) -> usize {
    let mut named: BTreeSet<&str> = BTreeSet::new();
    let mut count = 0;
    for (at, word) in words(text) {
        if !OURS.iter().any(|prefix| word.starts_with(prefix)) {
            continue;
        }
        count += 1;
        let Some(labels) = samples.get(word) else {
            wrong.push(format!("{file}: there is no metric {word}"));
            continue;
        };
        named.extend(labels);
        let after = &text[at + word.len()..];
        for label in after.strip_prefix('{').map(matchers).unwrap_or_default() {
            if !labels.contains(label) && !ADDED.contains(&label) {
                wrong.push(format!("{file}: {word} has no label {label}"));
            }
        }
    }
    for label in templates(text).chain(groupings(text)) {
        if !named.contains(label) && !ADDED.contains(&label) {
            wrong.push(format!("{file}: no metric beside it has the label {label}: {}", text.trim()));
        }
    }
    count
}

/// Returns the identifiers of a text with their places.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let begin = text.as_ptr() as usize;
    let words = text.split(move |letter| !is_part(letter)).filter(|word| !word.is_empty());
    words.map(move |word| (word.as_ptr() as usize - begin, word))
}

/// Returns the names of labels in matchers, which begin after their brace: `a="x", b=~"y"}`.
fn matchers(text: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut rest = text;
    while let Some(end) = rest.find(['=', '!', '}']) {
        if rest[end..].starts_with('}') {
            break;
        }
        names.push(rest[..end].trim_matches([' ', ',']));
        // The value lies between two quotes.
        let Some(value) = rest[end..].split_once('"') else { break };
        let Some((_, after)) = value.1.split_once('"') else { break };
        rest = after;
    }
    names
}

/// Returns the labels of templates: `{{ $labels.query }}` of alerts, `{{query}}` of legends.
fn templates(text: &str) -> impl Iterator<Item = &str> {
    let inside = text.split("{{").skip(1).filter_map(|rest| rest.split("}}").next());
    let names = inside.map(str::trim).filter(|inside| !inside.starts_with("$value"));
    names.map(|inside| inside.strip_prefix("$labels.").unwrap_or(inside))
}

/// Returns the labels after `by` and `on`.
fn groupings(text: &str) -> impl Iterator<Item = &str> {
    let lists = [" by (", " on ("].into_iter().flat_map(|word| text.split(word).skip(1));
    let lists = lists.filter_map(|rest| rest.split(')').next());
    lists.flat_map(|list| list.split(',')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str) -> Vec<String> {
        let mut wrong = Vec::new();
        of_text("f", text, &samples(), &mut wrong);
        wrong
    }

    #[test]
    fn metrics_and_labels_that_exist_are_right() {
        for right in [
            r#"rate(millstream_source_rows_total{source=~"a}b", instance="x"}[5m]) {{ $labels.source }} {{ $value | humanize }}"#,
            "histogram_quantile(0.99, sum by (le, instance) (millstream_epoch_processing_seconds_bucket)) {{instance}}",
            r#"millstream_query_status{query="q",status!="running"}"#,
            "millstream_build_info{job=\"m\"} {{version}}",
            "process_resident_memory_bytes",
        ] {
            assert_eq!(wrong(right), Vec::<String>::new(), "{right}");
        }
    }

    #[test]
    fn each_wrong_name_is_found() {
        for (text, error) in [
            ("millstream_source_rows", "no metric millstream_source_rows"),
            ("millstream_epoch_processing_seconds > 1", "no metric millstream_epoch_processing_seconds"),
            ("millstream_source_up{query=\"q\"}", "millstream_source_up has no label query"),
            ("millstream_ready{instance=\"a\", le=\"1\"}", "millstream_ready has no label le"),
            ("millstream_source_up {{ $labels.sink }}", "has the label sink"),
            ("sum by (query) (millstream_source_up)", "has the label query"),
        ] {
            let wrong = wrong(text);
            assert!(wrong.len() == 1 && wrong[0].contains(error), "{text}: {wrong:?}");
        }
    }
}
