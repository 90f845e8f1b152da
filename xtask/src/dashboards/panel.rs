//! One panel: what it asks, and how its answer is shown.

use serde_json::{Value, json};

/// The columns that a dashboard is wide.
pub(super) const WIDTH: u32 = 24;

/// How an answer is shown, which decides its shape.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// One number.
    Stat,
    /// Lines over time.
    Series,
    /// A row for each set of labels.
    Table,
}

/// A panel.
pub(super) struct Panel {
    title: &'static str,
    about: &'static str,
    kind: Kind,
    unit: &'static str,
    queries: Vec<(String, &'static str)>,
    /// From which values on it is yellow, and red.
    limits: Option<(f64, f64)>,
    /// Red below, not above.
    low_is_bad: bool,
    columns: &'static [&'static str],
    /// A third of the width, not a half.
    is_narrow: bool,
    link: Option<(&'static str, &'static str)>,
}

impl Panel {
    fn new(kind: Kind, title: &'static str, unit: &'static str) -> Self {
        let (about, queries, columns) = ("", Vec::new(), [].as_slice());
        Self {
            title,
            about,
            kind,
            unit,
            queries,
            limits: None,
            low_is_bad: false,
            columns,
            is_narrow: false,
            link: None,
        }
    }

    /// One number in a unit of Grafana's.
    pub(super) fn stat(title: &'static str, unit: &'static str, query: impl Into<String>) -> Self {
        Self::new(Kind::Stat, title, unit).and(query, "")
    }

    /// Lines over time; `legend` names a line by its labels, as `{{label}}`.
    pub(super) fn series(
        title: &'static str,
        unit: &'static str,
        query: impl Into<String>,
        legend: &'static str,
    ) -> Self {
        Self::new(Kind::Series, title, unit).and(query, legend)
    }

    /// A row for each set of `columns`, and the value.
    pub(super) fn table(
        title: &'static str,
        unit: &'static str,
        query: impl Into<String>,
        columns: &'static [&'static str],
    ) -> Self {
        Self { columns, ..Self::new(Kind::Table, title, unit).and(query, "") }
    }

    /// One more query.
    pub(super) fn and(mut self, query: impl Into<String>, legend: &'static str) -> Self {
        self.queries.push((query.into(), legend));
        self
    }

    /// What a person should know to read it.
    pub(super) fn about(self, about: &'static str) -> Self {
        Self { about, ..self }
    }

    /// Yellow and red from these values on.
    pub(super) fn limits(self, yellow: f64, red: f64) -> Self {
        Self { limits: Some((yellow, red)), ..self }
    }

    /// Red below the first value, yellow below the second.
    pub(super) fn at_least(self, red: f64, yellow: f64) -> Self {
        Self { limits: Some((red, yellow)), low_is_bad: true, ..self }
    }

    /// Leads from a value to another dashboard, with these variables.
    pub(super) fn leads_to(self, uid: &'static str, variables: &'static str) -> Self {
        Self { link: Some((uid, variables)), ..self }
    }

    /// Lines that share their row with two more such panels.
    pub(super) fn a_third(self) -> Self {
        Self { is_narrow: true, ..self }
    }

    /// Columns and rows of the grid.
    pub(super) fn size(&self) -> (u32, u32) {
        match self.kind {
            Kind::Stat => (4, 4),
            Kind::Series if self.is_narrow => (8, 8),
            Kind::Series => (12, 8),
            Kind::Table => (WIDTH, 9),
        }
    }

    /// As Grafana reads it, at a place of the grid.
    pub(super) fn to_json(&self, id: usize, x: u32, y: u32) -> Value {
        let (w, h) = self.size();
        let mut panel = json!({
            "id": id,
            "type": match self.kind { Kind::Stat => "stat", Kind::Series => "timeseries", Kind::Table => "table" },
            "title": self.title,
            "description": self.about,
            "datasource": datasource(),
            "gridPos": {"x": x, "y": y, "w": w, "h": h},
            "targets": self.targets(),
            "fieldConfig": {"defaults": self.defaults(), "overrides": []},
            "options": self.options(),
        });
        if self.kind == Kind::Table {
            let order: serde_json::Map<String, Value> =
                self.columns.iter().enumerate().map(|(place, name)| ((*name).to_owned(), json!(place))).collect();
            let options = json!({"excludeByName": {"Time": true}, "indexByName": order});
            panel["transformations"] = json!([{"id": "organize", "options": options}]);
        }
        panel
    }

    fn targets(&self) -> Vec<Value> {
        let target = |(index, (query, legend)): (usize, &(String, &str))| {
            let instant = self.kind != Kind::Series;
            json!({
                "refId": char::from(b'A' + u8::try_from(index % 26).unwrap_or_default()).to_string(),
                "datasource": datasource(),
                "expr": query,
                "legendFormat": legend,
                "instant": instant,
                "range": !instant,
                "format": if self.kind == Kind::Table { "table" } else { "time_series" },
            })
        };
        self.queries.iter().enumerate().map(target).collect()
    }

    fn defaults(&self) -> Value {
        let steps = match self.limits {
            None => json!([{"color": "green", "value": null}]),
            Some((red, yellow)) if self.low_is_bad => json!([
                {"color": "red", "value": null}, {"color": "yellow", "value": red}, {"color": "green", "value": yellow},
            ]),
            Some((yellow, red)) => json!([
                {"color": "green", "value": null}, {"color": "yellow", "value": yellow}, {"color": "red", "value": red},
            ]),
        };
        let links: Vec<_> = self.link.iter().map(|(uid, variables)| {
            json!({"title": format!("Open {uid}"), "url": format!("/d/{uid}?{variables}&${{__url_time_range}}")})
        }).collect();
        let style = if self.limits.is_some() { "dashed" } else { "off" };
        json!({
            "unit": self.unit,
            "custom": match self.kind {
                Kind::Stat => json!({}),
                Kind::Series => json!({"thresholdsStyle": {"mode": style}}),
                Kind::Table => json!({"align": "auto", "inspect": false}),
            },
            "min": if self.kind == Kind::Series { json!(0) } else { Value::Null },
            "thresholds": {"mode": "absolute", "steps": steps},
            "color": {"mode": if self.kind == Kind::Series { "palette-classic" } else { "thresholds" }},
            "links": links,
        })
    }

    fn options(&self) -> Value {
        match self.kind {
            Kind::Stat => {
                json!({
                    "colorMode": "value", "graphMode": "none", "reduceOptions": {"calcs": ["lastNotNull"]},
                    "justifyMode": "auto", "orientation": "auto", "textMode": "auto", "wideLayout": true,
                    "showPercentChange": false, "percentChangeColorMode": "standard",
                })
            }
            Kind::Series => json!({
                "legend": {"showLegend": true, "displayMode": "table", "placement": "right", "calcs": ["lastNotNull", "max"]},
                "tooltip": {"mode": "multi", "sort": "desc"},
            }),
            Kind::Table => json!({"showHeader": true, "frameIndex": 0}),
        }
    }
}

/// The data source that the reader has chosen.
pub(super) fn datasource() -> Value {
    json!({"type": "prometheus", "uid": "${datasource}"})
}
