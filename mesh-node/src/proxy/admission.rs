//! Whether a connection may enter a pod's application: judged before the application hears of it, and again whenever
//! policies change.

use std::{sync::Arc, time::Duration};

use mesh_core::{
    Snapshot, Workload, forbids_plaintext,
    policy::{Authorization, Denial, Permit, authorize},
};

use crate::{
    pods::EnrolledPod,
    telemetry::{Cut, CutReason, Decider, Refused, Report, Reporter, Security},
    workers::Worker,
};

/// How long a connection may wait for the configuration to know its pod. Without it nobody knows the pod's policies.
const PATIENCE: Duration = Duration::from_secs(3);

/// A connection that may not enter: why, for metrics and for people.
pub(super) type Rejection = (Refused, String);

/// The snapshot in force, and the pod's workload in it; where it is not there yet, the next that has it.
///
/// Who has both judges and registers the connection before anything else is awaited: so no change of policies falls
/// in between, unseen by [`rejudge`].
pub(super) async fn awaited(worker: &Worker, pod: &EnrolledPod) -> (Arc<Snapshot>, Option<Arc<Workload>>) {
    let find = |snapshot: &Arc<Snapshot>| snapshot.workload_by_uid(&pod.uid).cloned();
    let snapshot = worker.shared.snapshot();
    let workload = find(&snapshot);
    if workload.is_some() {
        return (snapshot, workload);
    }
    let mut changes = worker.shared.config_changes();
    let arrival = changes.wait_for(|config| config.snapshot.workload_by_uid(&pod.uid).is_some());
    // In vain or not, what is in force now decides.
    let _ = tokio::time::timeout(PATIENCE, arrival).await;
    let snapshot = worker.shared.snapshot();
    let workload = find(&snapshot);
    (snapshot, workload)
}

/// Judges a connection into the pod, of which the report has both addresses, the pod's workload and who connects.
pub(super) fn judge(
    worker: &Worker,
    pod: &EnrolledPod,
    snapshot: &Snapshot,
    report: &mut Report,
) -> Result<Permit, Rejection> {
    let authorization = examine(pod, snapshot, report)?;
    worker.shared.telemetry.judged(report, &authorization);
    authorization.verdict.map_err(|denial| rejection(&denial))
}

/// The same, with nothing told of it yet: it may turn out that somebody else connects.
pub(super) fn examine(pod: &EnrolledPod, snapshot: &Snapshot, report: &mut Report) -> Result<Authorization, Rejection> {
    let Some(target) = report.destination.address else {
        return Err((Refused::BadTarget, "it is not known where the connection goes".to_owned()));
    };
    if !pod.owns(target.ip()) || mesh_abi::ports::is_reserved(target.port()) {
        let error = format!("{target} is not an address of {}'s applications", pod.display_name);
        return Err((Refused::BadTarget, error));
    }
    let (Some(workload), Some(facts)) = (report.destination.workload.as_deref(), report.facts()) else {
        let error = format!("{}'s policies have not arrived", pod.display_name);
        return Err((Refused::WorkloadUnknown, error));
    };
    let authorization = authorize(snapshot, workload, &facts);
    report.decider = Decider::of(&authorization.verdict);
    Ok(authorization)
}

/// Judges the thread's connections again, by the snapshot in force, and cuts those that are denied now.
pub fn rejudge(worker: &Worker) {
    let snapshot = worker.shared.snapshot();
    for connection in worker.connections.all() {
        let report = connection.report();
        let cut = match report.reporter {
            Reporter::Destination => denied(&snapshot, report),
            Reporter::Source => forbidden(&snapshot, report),
        };
        if let Some(cut) = cut {
            connection.cut(cut);
        }
    }
}

/// A connection into a pod is judged as a new one would be.
fn denied(snapshot: &Snapshot, report: &Report) -> Option<Cut> {
    // A pod that is not there any more takes its connections with it.
    let workload = report.destination.workload.as_ref().and_then(|old| snapshot.workload_by_uid(&old.uid))?;
    let denial = authorize(snapshot, workload, &report.facts()?).verdict.err()?;
    Some(Cut { reason: CutReason::PolicyDenied, detail: denial.to_string() })
}

/// A pod's own connection may be plaintext as long as no DestinationRule asks for TLS. Whether it may enter is for the other
/// end to judge.
pub(super) fn forbidden(snapshot: &Snapshot, report: &Report) -> Option<Cut> {
    if report.security != Security::None {
        return None;
    }
    let client = report.source.workload.as_ref();
    let client = client.and_then(|old| snapshot.workload_by_uid(&old.uid));
    let (asked, endpoint) = (report.original?, report.destination.address?);
    let (rule, tls) = forbids_plaintext(snapshot, client.map(Arc::as_ref), asked, endpoint)?;
    let detail = format!("DestinationRule {rule} asks for TLS of mode {} now", tls.as_str());
    Some(Cut { reason: CutReason::RuleNotMet, detail })
}

/// What comes of a denial.
pub(super) fn rejection(denial: &Denial) -> Rejection {
    let refused = match denial {
        Denial::PlaintextUnderStrict(_) => Refused::PlaintextUnderStrict,
        Denial::PastWaypoint(_) | Denial::Custom(_) | Denial::DeniedBy(_) | Denial::NoAllowMatches { .. } => {
            Refused::PolicyDenied
        }
    };
    (refused, denial.to_string())
}
