//! The dashboards.

mod golden;
mod mesh;
mod namespace;
mod node;
mod requests;
mod service;
mod waypoint;
mod workload;

use super::board::{Board, Row, Variable};
use super::panel::Panel;

/// Every dashboard.
pub(super) fn all() -> Vec<Board> {
    vec![
        mesh::board(),
        namespace::board(),
        service::board(),
        workload::board(),
        waypoint::board(),
        node::board(),
        golden::board(),
    ]
}

/// A counter's growth a second with these labels, summed by others.
fn rate(counter: &str, selector: &str, by: &str) -> String {
    let by = if by.is_empty() { String::new() } else { format!(" by ({by})") };
    format!("sum{by} (rate({counter}{{{selector}}}[$__rate_interval]))")
}

/// Connections a second.
fn opened(selector: &str, by: &str) -> String {
    rate("istio_tcp_connections_opened_total", selector, by)
}

/// Connections that are open, by two counters of one set of labels.
fn open_now(selector: &str, by: &str) -> String {
    format!(
        "sum by ({by}) (istio_tcp_connections_opened_total{{{selector}}}) - \
         sum by ({by}) (istio_tcp_connections_closed_total{{{selector}}})"
    )
}

/// The share of connections that came to nothing, without those that policy denied.
fn error_ratio(selector: &str, by: &str) -> String {
    let errors = opened(&format!("{selector},response_flags=~\"U[FH]|NR\""), by);
    let all = opened(selector, by);
    format!("(({errors}) or 0 * ({all})) / ({all})")
}

/// A variable whose values are those of a label.
const fn variable(name: &'static str, label: &'static str, series: &'static str, value: &'static str) -> Variable {
    Variable { name, label, series, value }
}

const fn row(title: &'static str, panels: Vec<Panel>) -> Row {
    Row { title, panels }
}
