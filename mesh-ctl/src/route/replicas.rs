//! Which endpoints the waypoint's or gateway's replicas, any of which may read a request, have ejected: they alone know.

use std::path::{Path, PathBuf};

use mesh_admin::{RequestQuestion, RequestWhy, WAYPOINT_SOCKET, path};

use crate::cluster::ClusterArguments;
use crate::daemon::Daemon;
use crate::fleet::{self, Target};
use crate::reach::{Reach, WaypointReach};

/// Has them say so, as far as they can be asked: those at the sockets, or of the cluster, or the one of this machine.
pub(crate) async fn complete(
    answer: &mut RequestWhy,
    question: &RequestQuestion,
    (reach, sockets): (&Reach, &[PathBuf]),
    cluster: &ClusterArguments,
) {
    let reader = answer.waypoint.as_ref().or(answer.gateway.as_ref());
    let Some((namespace, name)) = reader.and_then(|reader| reader.split_once('/')) else { return };
    if answer.backends.is_empty() {
        return;
    }
    match find(namespace, name, (reach, sockets), cluster).await {
        Ok(targets) if targets.is_empty() => {}
        Ok(targets) => ask(answer, question, targets).await,
        Err(error) => answer.notes.push(format!("nobody said which endpoints are ejected: {error:#}")),
    }
}

async fn find(
    namespace: &str,
    name: &str,
    (reach, sockets): (&Reach, &[PathBuf]),
    cluster: &ClusterArguments,
) -> anyhow::Result<Vec<Target>> {
    if sockets.is_empty() && reach.is_of_a_cluster(cluster)? {
        let of_cluster = WaypointReach::default();
        return Ok(of_cluster.find(cluster, Some(namespace), Some(name)).await?.targets());
    }
    let usual = Path::new(WAYPOINT_SOCKET);
    let usual = (sockets.is_empty() && usual.exists()).then(|| usual.to_owned());
    let at = |socket: &PathBuf| Target {
        name: socket.display().to_string(),
        daemon: Ok(Daemon::waypoint_at(socket.clone())),
    };
    Ok(sockets.iter().chain(&usual).map(at).collect())
}

async fn ask(answer: &mut RequestWhy, question: &RequestQuestion, targets: Vec<Target>) {
    // One of them may have answered for itself.
    answer.asked.clear();
    answer.backends.iter_mut().for_each(|backend| backend.ejected.clear());
    let query = question.to_query();
    let said = fleet::ask(targets, |daemon| {
        let query = query.clone();
        async move { daemon.get::<RequestWhy>(path::REQUEST, &query).await }
    });
    for said in said.await {
        match said.answer {
            Ok(of_replica) if of_replica.asked.is_empty() => {
                answer.notes.push(format!("{} does not read it, and said nothing of ejected endpoints", said.name));
            }
            Ok(of_replica) => merge(answer, of_replica),
            Err(error) => {
                answer.notes.push(format!("{} did not say which endpoints it has ejected: {error:#}", said.name));
            }
        }
    }
}

fn merge(answer: &mut RequestWhy, of_replica: RequestWhy) {
    answer.asked.extend(of_replica.asked);
    for told in of_replica.backends {
        if let Some(backend) = answer.backends.iter_mut().find(|backend| backend.to == told.to) {
            backend.ejected.extend(told.ejected);
        }
    }
}

#[cfg(test)]
mod tests {
    use mesh_admin::{Ejected, RequestBackend, RequestServer};

    use super::*;
    use crate::route::tell::for_people;

    /// What a replica says of two subsets with a server each, of which it has ejected these.
    fn told(replica: &str, ejected: &[&str]) -> RequestWhy {
        let backend = |subset: &str, address: &str| RequestBackend {
            to: format!("cart.shop:80 subset {subset}"),
            endpoints: 1,
            servers: vec![RequestServer { endpoint: address.into(), ..RequestServer::default() }],
            ejected: ejected
                .iter()
                .filter(|it| **it == address)
                .map(|_| Ejected {
                    endpoint: address.into(),
                    at: replica.into(),
                    why: "too many 5xx in a row".into(),
                    returns_in_seconds: 29,
                    ..Ejected::default()
                })
                .collect(),
            ..RequestBackend::default()
        };
        let backends = vec![backend("v1", "10.0.0.1:80"), backend("v2", "10.0.0.2:80")];
        RequestWhy { asked: vec![replica.into()], backends, ..RequestWhy::default() }
    }

    #[test]
    fn each_replica_that_was_asked_adds_what_it_has_ejected() {
        let mut answer = RequestWhy { asked: Vec::new(), ..told("", &[]) };
        assert!(!for_people(&answer).contains("ejected"), "nobody was asked: {}", for_people(&answer));
        merge(&mut answer, told("shop/w-1", &["10.0.0.2:80"]));
        merge(&mut answer, told("shop/w-2", &[]));
        let text = for_people(&answer);
        assert!(text.contains("(10.0.0.1:80)\n"), "{text}");
        let ejected = "(10.0.0.2:80), ejected at shop/w-1: too many 5xx in a row; back in 29s\n";
        assert!(text.contains(ejected), "{text}");
        assert!(text.contains("asked      shop/w-1, shop/w-2: one endpoint is ejected\n"), "{text}");
    }
}
