//! `mesh-ctl waypoint clusters`: where requests go, a line for each endpoint.

use mesh_admin::{Bound, ClusterEndpoint, WaypointCluster, path};

use crate::list::Listed;
use crate::output::age;

impl Listed for WaypointCluster {
    const PATH: &'static str = path::WAYPOINT_CLUSTERS;
    const PLURAL: &'static str = "clusters";
    const HEADINGS: &'static [&'static str] =
        &["CLUSTER", "BALANCER", "BOUNDS", "ENDPOINT", "WORKLOAD", "LOCALITY", "HEALTH", "ACTIVE", "WHY"];

    fn row(&self) -> Vec<String> {
        let mut row = vec![self.name.clone(), balancer(self), bounds(self)];
        row.extend(match self.endpoints.first() {
            Some(endpoint) => columns(endpoint),
            None => {
                let why = self.refused.clone().unwrap_or_else(|| "no endpoint is ready".to_owned());
                ["none".to_owned(), String::new(), String::new(), String::new(), String::new(), why]
            }
        });
        row
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let others = self.endpoints.iter().skip(1).map(|endpoint| {
            let mut row = vec![String::new(); 3];
            row.extend(columns(endpoint));
            row
        });
        std::iter::once(self.row()).chain(others).collect()
    }
}

/// How an endpoint is picked, and what tells them apart before that.
fn balancer(cluster: &WaypointCluster) -> String {
    let by = cluster.preferred_by.as_ref();
    by.map_or_else(|| cluster.balancer.clone(), |by| format!("{} ({by})", cluster.balancer))
}

/// Where it is, and what comes of that.
fn locality(endpoint: &ClusterEndpoint) -> String {
    let at = endpoint.locality.as_deref().unwrap_or("-");
    match (endpoint.priority, endpoint.share) {
        (_, Some(share)) => format!("{at} (share {share})"),
        (Some(priority), None) => format!("{at} (priority {priority})"),
        (None, None) => at.to_owned(),
    }
}

fn columns(endpoint: &ClusterEndpoint) -> [String; 6] {
    let times = |count| format!("ejected {count} time{}", if count == 1 { "" } else { "s" });
    let why = endpoint.ejected_for.clone().unwrap_or_default();
    let why = match (endpoint.returns_in_seconds, endpoint.ejections) {
        (Some(seconds), 0) => format!("{why}; back in {}", age(seconds)),
        (Some(seconds), count) => format!("{why}; back in {} ({})", age(seconds), times(count)),
        (None, 0) => String::new(),
        (None, count) => format!("was {}: {why}", times(count)),
    };
    [
        endpoint.address.to_string(),
        endpoint.workload.clone().unwrap_or_else(|| "-".to_owned()),
        locality(endpoint),
        endpoint.health.clone(),
        endpoint.active.to_string(),
        why,
    ]
}

/// Bounds that there are, and what was refused for want of room.
fn bounds(cluster: &WaypointCluster) -> String {
    let pool = &cluster.pool;
    let bounds = [
        ("connections", pool.connections),
        ("waiting", pool.pending),
        ("requests", pool.requests),
        ("retries", pool.retries),
    ];
    let told = bounds.iter().filter(|(_, bound)| bound.most.is_some() || bound.overflows > 0);
    let told: Vec<String> = told.map(|(name, bound)| format!("{name} {}", in_use(*bound))).collect();
    if told.is_empty() { "none".to_owned() } else { told.join(", ") }
}

fn in_use(bound: Bound) -> String {
    let most = bound.most.map_or_else(String::new, |most| format!("/{most}"));
    let over = if bound.overflows > 0 { format!(" ({} over)", bound.overflows) } else { String::new() };
    format!("{}{most}{over}", bound.used)
}

#[cfg(test)]
mod tests {
    use mesh_admin::ClusterPool;

    use super::*;

    #[test]
    fn who_is_ejected_is_told_with_why_and_until_when() {
        let endpoint = ClusterEndpoint {
            address: ([10, 0, 0, 1], 8080).into(),
            workload: Some("shop/cart-1".into()),
            locality: Some("eu/a".into()),
            priority: Some(1),
            share: None,
            health: "ejected".into(),
            active: 2,
            errors_in_a_row: 0,
            ejections: 1,
            ejected_for: Some("too many 5xx in a row".into()),
            returns_in_seconds: Some(29),
        };
        let gone = ClusterEndpoint {
            health: "passed by".into(),
            ejections: 0,
            ejected_for: Some("it does not answer at all".into()),
            ..endpoint.clone()
        };
        let back = ClusterEndpoint { health: "healthy".into(), returns_in_seconds: None, ..endpoint.clone() };
        let mut cluster = WaypointCluster {
            namespace: "shop".into(),
            name: "cart.shop:80".into(),
            balancer: "round robin".into(),
            preferred_by: Some("localityLbSetting.failover".into()),
            endpoints: vec![endpoint, back, gone],
            pool: ClusterPool {
                pending: Bound { used: 1, most: Some(1), overflows: 3 },
                retries: Bound { used: 0, most: None, overflows: 2 },
                ..ClusterPool::default()
            },
            ejections: 2,
            refused: None,
        };
        let rows = cluster.rows();
        assert!(rows.iter().all(|row| row.len() == WaypointCluster::HEADINGS.len()), "{rows:?}");
        assert_eq!(rows[0][2], "waiting 1/1 (3 over), retries 0 (2 over)");
        assert_eq!((&*rows[0][1], &*rows[0][5]), ("round robin (localityLbSetting.failover)", "eu/a (priority 1)"));
        assert_eq!(rows[0][8], "too many 5xx in a row; back in 29s (ejected 1 time)");
        assert_eq!(rows[1][8], "was ejected 1 time: too many 5xx in a row");
        assert_eq!(rows[2][8], "it does not answer at all; back in 29s");

        cluster.endpoints.clear();
        cluster.refused = Some("nothing is sent there".into());
        assert_eq!(cluster.rows()[0][3], "none");
        assert_eq!(cluster.rows()[0][8], "nothing is sent there");
    }
}
