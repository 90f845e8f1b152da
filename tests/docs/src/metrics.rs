//! A program's metrics.

use mesh_metrics::Listed;

use crate::{cell, hold};

/// The types that our own text has.
const KINDS: [&str; 2] = ["counter", "gauge"];

/// Holds a program's page to the metrics that it registers.
///
/// # Panics
/// When they differ.
pub fn hold_metrics(program: &str, metrics: Vec<Listed>) {
    hold(&format!("metrics-{program}.md"), &page(program, metrics));
}

/// The same for a program that writes Prometheus' text format itself: `text` is what it says, with a series of each metric.
///
/// # Panics
/// When they differ.
pub fn hold_metrics_text(program: &str, text: &str) {
    hold(&format!("metrics-{program}.md"), &page(program, read(text)));
}

/// Reads `# HELP`, `# TYPE` and the labels of the series after them.
fn read(text: &str) -> Vec<Listed> {
    let mut metrics: Vec<Listed> = Vec::new();
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            let (name, help) = (name.to_owned(), help.to_owned());
            metrics.push(Listed { name, kind: "", labels: Vec::new(), help });
            continue;
        }
        let Some(metric) = metrics.last_mut() else { continue };
        if let Some(kind) = line.strip_prefix(&format!("# TYPE {} ", metric.name)) {
            metric.kind = KINDS.into_iter().find(|known| *known == kind).unwrap_or("untyped");
        } else if let Some((_, labels)) = line.split_once('{') {
            let names = labels.split(',').filter_map(|label| label.split_once('=')).map(|(name, _)| name.to_owned());
            metric.labels = names.collect();
        }
    }
    metrics
}

fn page(program: &str, mut metrics: Vec<Listed>) -> String {
    metrics.sort();
    let mut page = format!(
        "<!-- Made by `cargo xtask docs` from the program's metrics. -->\n\n# Metrics of {program}\n\n\
         | metric | type | meaning | labels |\n|---|---|---|---|\n"
    );
    for metric in metrics {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        page.push_str(&format!(
            "| `{}` | {} | {} | {} |\n",
            metric.name,
            metric.kind,
            cell(&metric.help),
            labels.join(", ")
        ));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_format_is_read_and_told_in_the_order_of_names() {
        let text = "# HELP b Others | more\n# TYPE b gauge\nb 2\n# HELP a_total Things seen\n# TYPE a_total counter\na_total{what=\"x\",why=\"y\"} 1\n";
        let rows = "| `a_total` | counter | Things seen | `what`, `why` |\n| `b` | gauge | Others \\| more |  |\n";
        assert!(page("it", read(text)).ends_with(rows));
    }
}
