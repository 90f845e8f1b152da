//! Who may have which certificate in a cluster.
//!
//! A node agent shows the token of its pod, which the API server judges and which names the pod's node. It gets certificates for
//! the accounts of pods that are placed there, and for no others. A waypoint or gateway, which no node agent serves, shows the token
//! of its own pod, and gets certificates for that pod's account alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use kube::api::{Api, PostParams};
use mesh_ca::{Caller, Denial, Gatekeeper};
use mesh_config::{Config, ObjectName};
use mesh_core::l7::GATEWAY_NAME;
use mesh_core::{NodeName, SpiffeId, WorkloadUid};
use tokio::sync::watch;
use tokio::time::timeout;

use super::ClusterArgs;

/// What the API server says of a pod's token, beside the account.
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
/// How long the API server may take to judge a token; who asks waits 4 s.
const JUDGEMENT: Duration = Duration::from_secs(3);
/// How long a pod may be known to its node and not here: both hear of it by watches of their own.
const PLACEMENT: Duration = Duration::from_secs(2);

/// Judges by the API server's word and by the Pods.
pub(crate) struct KubernetesGatekeeper {
    reviews: Api<TokenReview>,
    config: watch::Receiver<Arc<Config>>,
    /// The node agents' user name.
    agent: String,
    /// That of this program's replicas.
    control: String,
    audience: String,
}

impl KubernetesGatekeeper {
    pub(crate) fn new(client: kube::Client, args: &ClusterArgs, config: watch::Receiver<Arc<Config>>) -> Self {
        Self {
            reviews: Api::all(client),
            config,
            agent: account(args.namespace(), &args.node_account),
            control: account(args.namespace(), &args.control_account),
            audience: args.token_audience.clone(),
        }
    }

    /// Whose token it is, if it is for us.
    async fn review(&self, token: &str) -> Result<UserInfo, Denial> {
        let spec = TokenReviewSpec { token: token.to_owned(), audiences: Some(vec![self.audience.clone()]) };
        let review = TokenReview { spec, ..TokenReview::default() };
        let parameters = PostParams::default();
        let answer = timeout(JUDGEMENT, self.reviews.create(&parameters, &review)).await;
        let unavailable = |problem: String| Denial::Unavailable(problem);
        let answer = answer.map_err(|_| unavailable(format!("no answer within {} s", JUDGEMENT.as_secs())))?;
        let answer = answer.map_err(|error| unavailable(error.to_string()))?;
        let status = answer.status.ok_or_else(|| unavailable("the API server's answer has no status".to_owned()))?;
        // A server that knows no audiences leaves them out; it must not pass for one that has checked them.
        let is_for_us = status.audiences.is_some_and(|audiences| audiences.contains(&self.audience));
        match status.user {
            Some(user) if status.authenticated == Some(true) && is_for_us => Ok(user),
            _ => Err(Denial::UnknownCaller),
        }
    }

    /// The node of the pod that a token is bound to.
    fn node(&self, extra: &Extra) -> Option<NodeName> {
        // API servers before 1.30 name the pod alone.
        first(extra, NODE_NAME).map(NodeName::from).or_else(|| {
            let uid = WorkloadUid::from(first(extra, POD_UID)?);
            Some(self.config.borrow().snapshot.workload_by_uid(&uid)?.node.clone())
        })
    }

    /// Who the pod is that a token is bound to, if it is a Gateway's that there is: what a proxy is told is the whole configuration, and
    /// a pod that merely says that it were one is told nothing. Any other pod has its certificates held by its node.
    async fn proxy(&self, user: &str, extra: &Extra) -> Option<SpiffeId> {
        let uid = WorkloadUid::from(first(extra, POD_UID)?);
        let identity = |config: &Config| {
            let pod = config.snapshot.workload_by_uid(&uid)?;
            let of = pod.labels.get(GATEWAY_NAME)?;
            let gateway = ObjectName {
                group: "gateway.networking.k8s.io".into(),
                kind: "Gateway".into(),
                namespace: Some(pod.identity.namespace().into()),
                name: of.to_string().into(),
            };
            config.served.get(("", &gateway.path()))?;
            let is_its_own = user == account(pod.identity.namespace(), pod.identity.service_account());
            is_its_own.then(|| pod.identity.clone())
        };
        let mut config = self.config.clone();
        let known = config.wait_for(|config| identity(config).is_some());
        let config = timeout(PLACEMENT, known).await.ok()?.ok()?;
        identity(&config)
    }
}

type Extra = BTreeMap<String, Vec<String>>;

fn first<'a>(extra: &'a Extra, key: &str) -> Option<&'a str> {
    extra.get(key).and_then(|values| values.first()).map(String::as_str)
}

/// The user name of a service account.
fn account(namespace: &str, name: &str) -> String {
    format!("system:serviceaccount:{namespace}:{name}")
}

impl Gatekeeper for KubernetesGatekeeper {
    async fn authenticate(&self, token: &str) -> Result<Caller, Denial> {
        let user = self.review(token).await?;
        let (name, extra) = (user.username.unwrap_or_default(), user.extra.unwrap_or_default());
        let caller = if name == self.agent {
            self.node(&extra).map(Caller::Node)
        } else {
            self.proxy(&name, &extra).await.map(Caller::Proxy)
        };
        caller.ok_or(Denial::UnknownCaller)
    }

    async fn authenticate_replica(&self, token: &str) -> Result<(), Denial> {
        let user = self.review(token).await?;
        if user.username.as_ref() == Some(&self.control) { Ok(()) } else { Err(Denial::UnknownCaller) }
    }

    async fn placed(&self, node: &NodeName, identity: &SpiffeId) -> Result<(), Denial> {
        let is_placed =
            |config: &Arc<Config>| config.snapshot.workloads_on(node).any(|workload| workload.identity == *identity);
        let mut config = self.config.clone();
        match timeout(PLACEMENT, config.wait_for(is_placed)).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Denial::NotPlaced { identity: identity.clone(), node: node.clone() }),
        }
    }
}
