//! Which of several replicas writes: the one that holds a Lease.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::time::{Instant, sleep, timeout};

/// How long a Lease that is not renewed counts.
const DURATION: Duration = Duration::from_secs(15);
/// How long its holder writes without having renewed it: shorter, so that two never write at once.
const HOLD: Duration = Duration::from_secs(10);
/// Pause between two looks at it, and between two renewals.
const PAUSE: Duration = Duration::from_secs(2);
/// How long the API server may take for one.
const ANSWER: Duration = Duration::from_secs(5);
/// HTTP's words for an object that is there already, or was changed meanwhile.
const CONFLICT: u16 = 409;

/// A replica's part in finding out who leads.
pub(crate) struct Election {
    leases: Api<Lease>,
    name: String,
    /// Who this replica is.
    holder: String,
}

/// A Lease of another, as it was last seen, and since when it has been so: clocks of others are not compared.
struct SeenLease {
    version: Option<String>,
    since: Instant,
}

impl Election {
    pub(crate) fn new(client: Client, namespace: &str, name: &str, holder: String) -> Self {
        Self { leases: Api::namespaced(client, namespace), name: name.to_owned(), holder }
    }

    /// Has `work` done whenever, and for as long as, this replica leads. Runs until dropped.
    pub(crate) async fn lead(&self, work: impl AsyncFn()) {
        loop {
            self.acquire().await;
            tracing::info!(lease = self.name, holder = self.holder, "this replica leads");
            tokio::select! {
                () = work() => {}
                () = self.hold() => tracing::warn!(lease = self.name, "the lease is lost: another may lead"),
            }
        }
    }

    /// Lets another lead at once, when this replica ends.
    pub(crate) async fn release(&self) {
        let release = async {
            let mut lease = self.leases.get_opt(&self.name).await.ok()??;
            let spec = lease.spec.as_mut().filter(|spec| spec.holder_identity.as_deref() == Some(&self.holder))?;
            spec.holder_identity = None;
            self.leases.replace(&self.name, &PostParams::default(), &lease).await.ok()
        };
        // One that is not released runs out.
        let _ = timeout(ANSWER, release).await;
    }

    async fn acquire(&self) {
        let mut seen = None;
        loop {
            match timeout(ANSWER, self.attempt(&mut seen)).await {
                Ok(Ok(true)) => return,
                Ok(Err(error)) => {
                    tracing::warn!(lease = self.name, %error, "who leads is not known; it is tried again")
                }
                Ok(Ok(false)) | Err(_) => {}
            }
            sleep(PAUSE.mul_f64(0.75 + 0.5 * fastrand::f64())).await;
        }
    }

    /// Renews until that has not worked for too long.
    async fn hold(&self) {
        let mut renewed = Instant::now();
        while renewed.elapsed() < HOLD {
            sleep(PAUSE).await;
            let began = Instant::now();
            match timeout(ANSWER, self.attempt(&mut None)).await {
                Ok(Ok(true)) => renewed = began,
                Ok(Ok(false)) => return,
                Ok(Err(_)) | Err(_) => {}
            }
        }
    }

    /// Takes or renews the Lease, unless it is another's. Whoever writes second fails by the object's version.
    async fn attempt(&self, seen: &mut Option<SeenLease>) -> Result<bool, kube::Error> {
        let Some(mut lease) = self.leases.get_opt(&self.name).await? else {
            let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(self.spec(None)) };
            return won(self.leases.create(&PostParams::default(), &lease).await);
        };
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
        if !holder.is_empty() && holder != self.holder {
            let version = lease.metadata.resource_version.clone();
            match seen {
                Some(before) if before.version == version => {
                    if before.since.elapsed() < DURATION {
                        return Ok(false);
                    }
                }
                _ => {
                    *seen = Some(SeenLease { version, since: Instant::now() });
                    return Ok(false);
                }
            }
        }
        lease.spec = Some(self.spec(lease.spec.take()));
        won(self.leases.replace(&self.name, &PostParams::default(), &lease).await)
    }

    fn spec(&self, before: Option<LeaseSpec>) -> LeaseSpec {
        let before = before.unwrap_or_default();
        let now = MicroTime(Timestamp::now());
        let is_ours = before.holder_identity.as_deref() == Some(&self.holder);
        LeaseSpec {
            holder_identity: Some(self.holder.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: before.acquire_time.filter(|_| is_ours).or_else(|| Some(now.clone())),
            lease_transitions: Some(before.lease_transitions.unwrap_or(0) + i32::from(!is_ours)),
            renew_time: Some(now),
            ..LeaseSpec::default()
        }
    }
}

fn won(written: Result<Lease, kube::Error>) -> Result<bool, kube::Error> {
    match written {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == CONFLICT => Ok(false),
        Err(error) => Err(error),
    }
}
