//! `mesh-ctl waypoint routes`: the rules, a line for each of a rule's backends.

use mesh_admin::{RouteBackend, WaypointRoute, path};

use crate::list::Listed;

impl Listed for WaypointRoute {
    const PATH: &'static str = path::WAYPOINT_ROUTES;
    const PLURAL: &'static str = "routes";
    const HEADINGS: &'static [&'static str] =
        &["PARENT", "RULE", "MATCHES", "REQUESTS", "ERRORS", "TO", "WANTED", "SEEN", "WITH"];

    fn row(&self) -> Vec<String> {
        let matches = if self.matches.is_empty() { "every request".to_owned() } else { self.matches.join(" or ") };
        let to = if self.backends.is_empty() { self.action.clone() } else { String::new() };
        let mut row = vec![
            self.parents.join(" and "),
            self.rule.clone(),
            matches,
            self.requests.to_string(),
            self.errors.to_string(),
            to,
        ];
        row.extend([String::new(), String::new(), self.with.join("; ")]);
        if let Some(first) = self.backends.first() {
            row.splice(5..8, shares(first));
        }
        row
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let others = self.backends.iter().skip(1).map(|backend| {
            let mut row = vec![String::new(); 3];
            row.extend([backend.requests.to_string(), backend.errors.to_string()]);
            row.extend(shares(backend));
            row.push(String::new());
            row
        });
        std::iter::once(self.row()).chain(others).collect()
    }
}

fn shares(backend: &RouteBackend) -> [String; 3] {
    let seen = backend.seen_percent.map_or_else(|| "-".to_owned(), |seen| format!("{seen:.1}%"));
    [backend.to.clone(), format!("{:.1}%", backend.wanted_percent), seen]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_backend_of_a_rule_has_a_line() {
        let backend = |to: &str, weight: u32, requests| RouteBackend {
            to: to.into(),
            weight,
            wanted_percent: f64::from(weight),
            seen_percent: Some(88.88),
            requests,
            errors: 1,
        };
        let mut route = WaypointRoute {
            parents: vec!["cart.shop:80".into()],
            namespace: "shop".into(),
            rule: "VirtualService shop/cart rule 0".into(),
            matches: Vec::new(),
            action: "forwarded".into(),
            with: vec!["timeout 1s".into(), "up to 2 retries".into()],
            backends: vec![backend("cart:80 subset v1", 90, 7), backend("cart:80 subset v2", 10, 2)],
            requests: 9,
            errors: 2,
        };
        let rows = route.rows();
        assert_eq!(rows.len(), 2);
        assert!(rows.iter().all(|row| row.len() == WaypointRoute::HEADINGS.len()), "{rows:?}");
        assert_eq!(rows[0][2..8], ["every request", "9", "2", "cart:80 subset v1", "90.0%", "88.9%"]);
        assert_eq!(rows[1][3..8], ["2", "1", "cart:80 subset v2", "10.0%", "88.9%"]);

        route.backends.clear();
        route.action = "redirected with 301".into();
        assert_eq!(route.rows()[0][5], "redirected with 301");
        assert_eq!(route.rows()[0].len(), WaypointRoute::HEADINGS.len());
    }
}
