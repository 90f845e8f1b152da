//! A dashboard: variables, rows of panels, and links to the others.

use serde_json::{Value, json};

use super::panel::{Panel, WIDTH, datasource};

/// By which all of them are found and linked to each other.
const TAG: &str = "mesh";

/// A value that the reader chooses.
pub(super) struct Variable {
    pub(super) name: &'static str,
    pub(super) label: &'static str,
    /// The series whose label has the values.
    pub(super) series: &'static str,
    pub(super) value: &'static str,
}

/// Panels under a heading.
pub(super) struct Row {
    pub(super) title: &'static str,
    pub(super) panels: Vec<Panel>,
}

/// A dashboard.
pub(super) struct Board {
    /// Its name in links and of its file; never changed, since people keep links.
    pub(super) uid: &'static str,
    pub(super) title: &'static str,
    pub(super) about: &'static str,
    pub(super) variables: Vec<Variable>,
    pub(super) rows: Vec<Row>,
}

impl Board {
    /// As Grafana reads it, a file's text.
    pub(super) fn to_text(&self) -> String {
        format!("{:#}\n", self.to_json())
    }

    fn to_json(&self) -> Value {
        json!({
            "uid": self.uid,
            "title": self.title,
            "description": self.about,
            "tags": [TAG],
            "schemaVersion": 39,
            "version": 1,
            "editable": true,
            "graphTooltip": 1,
            "refresh": "15s",
            "time": {"from": "now-1h", "to": "now"},
            "timezone": "browser",
            "links": [{
                "title": "Mesh", "type": "dashboards", "tags": [TAG], "asDropdown": true, "icon": "external link", "tooltip": "",
                "includeVars": true, "keepTime": true, "targetBlank": false,
            }],
            "annotations": {"list": [alerts()]},
            "templating": {"list": self.templating()},
            "panels": self.panels(),
        })
    }

    fn templating(&self) -> Vec<Value> {
        let source = json!({"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"});
        let chosen = self.variables.iter().map(|variable| {
            let query = format!("label_values({}, {})", variable.series, variable.value);
            json!({
                "name": variable.name, "label": variable.label, "type": "query", "datasource": datasource(),
                "query": {"query": query, "refId": variable.name}, "definition": query,
                "refresh": 2, "sort": 1, "multi": false, "includeAll": false, "regex": "/^(?!unknown$).+/",
            })
        });
        std::iter::once(source).chain(chosen).collect()
    }

    /// Left to right, top to bottom.
    fn panels(&self) -> Vec<Value> {
        let (mut all, mut top) = (Vec::new(), 0);
        for row in &self.rows {
            all.push(json!({
                "id": all.len() + 1, "type": "row", "title": row.title, "collapsed": false, "panels": [],
                "gridPos": {"x": 0, "y": top, "w": WIDTH, "h": 1},
            }));
            top += 1;
            let (mut left, mut tallest) = (0, 0);
            for panel in &row.panels {
                let (width, height) = panel.size();
                if left + width > WIDTH {
                    (left, top, tallest) = (0, top + tallest, 0);
                }
                all.push(panel.to_json(all.len() + 1, left, top));
                (left, tallest) = (left + width, tallest.max(height));
            }
            top += tallest;
        }
        all
    }
}

/// Alerts of the mesh as marks over every panel.
fn alerts() -> Value {
    json!({
        "name": "Alerts", "enable": true, "iconColor": "red", "datasource": datasource(),
        "expr": "ALERTS{alertname=~\"Mesh.+\",alertstate=\"firing\",severity!=\"info\"}",
        "titleFormat": "{{alertname}}", "step": "60s",
    })
}
