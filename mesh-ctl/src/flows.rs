//! `mesh-ctl flows`: what happens to connections, as it happens.

use std::time::Duration;

use clap::Args;
use mesh_admin::{Flow, FlowLine, FlowSelection, Party, RequestFlow, Verdict, path};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::Outcome;
use crate::cluster::ClusterArguments;
use crate::daemon::{Daemon, Next};
use crate::fleet::Target;
use crate::output::{Format, note, one_line, print, print_line, time_of_day};
use crate::reach::{Asking, Reach};

/// Flows of all nodes that wait to be shown.
const QUEUE: usize = 4_096;
/// How long to watch without --follow, in seconds.
const DEFAULT_SECONDS: u64 = 10;

/// Shows connections as they open, end and are refused, requests, and what the kernel drops, from now on.
#[derive(Debug, Args)]
#[command(after_help = crate::EXIT_CODES)]
pub(crate) struct Flows {
    #[command(flatten)]
    reach: Reach,
    #[command(flatten)]
    watch: Watch,
}

/// Which flows, how long, and in what form.
#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// Goes on until it is interrupted.
    #[arg(short, long)]
    follow: bool,
    /// How long to watch, in seconds.
    #[arg(long = "for", value_name = "SECONDS", conflicts_with = "follow", default_value_t = DEFAULT_SECONDS)]
    seconds: u64,
    /// Ends after so many flows.
    #[arg(long, value_name = "N")]
    count: Option<usize>,
    /// Only flows with an end in this namespace.
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Only flows with this pod, or a pod of this workload, at an end.
    #[arg(short, long, value_name = "[NAMESPACE/]NAME")]
    pod: Option<String>,
    /// Only such events; may be given several times.
    #[arg(short, long, value_name = "EVENT", value_parser = FlowSelection::EVENTS)]
    event: Vec<String>,
    /// Only what was judged so; may be given several times.
    #[arg(long, value_name = "VERDICT", value_parser = FlowSelection::VERDICTS)]
    verdict: Vec<String>,
    /// Only requests with this status: 503, 5xx, or gRPC's as grpc:14; may be given several times.
    #[arg(long, value_name = "CODE", value_parser = FlowSelection::code)]
    code: Vec<String>,
    /// Only requests that took at least so many milliseconds.
    #[arg(long, value_name = "MILLISECONDS")]
    slow: Option<u64>,
    /// Only requests of this trace, 32 hexadecimal digits; at waypoints and gateways alone, which read it.
    #[arg(long, value_name = "TRACE-ID")]
    trace: Option<String>,
    /// The form of the output: a line each for programs, too.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
    /// Leaves the line of headings out.
    #[arg(long)]
    no_headers: bool,
}

/// What is heard of one of several daemons.
enum StreamEvent {
    Begun,
    Line(FlowLine),
    /// It will say no more, and why.
    Ended(anyhow::Error),
}

/// A flow, and the node that tells of it.
#[derive(Serialize)]
struct OfNode<'a> {
    node: &'a str,
    #[serde(flatten)]
    flow: &'a Flow,
}

impl Flows {
    pub(crate) async fn run(&self, cluster: &ClusterArguments) -> anyhow::Result<Outcome> {
        self.watch.run(self.reach.find(cluster).await?, "NODE").await
    }
}

impl Watch {
    /// Shows what daemons, waypoints or gateways tell; `kind` heads the column of who of several does.
    pub(crate) async fn run(&self, asking: Asking, kind: &str) -> anyhow::Result<Outcome> {
        let shown = async {
            match asking {
                Asking::One(daemon) => self.show(&daemon).await,
                Asking::Several(targets) => self.show_all(targets, kind).await,
            }
        };
        match self.follow {
            true => shown.await,
            // Time is up.
            false => tokio::time::timeout(Duration::from_secs(self.seconds), shown).await.unwrap_or(Ok(Outcome::Good)),
        }
    }

    fn query(&self) -> Vec<(&'static str, String)> {
        let selection = FlowSelection {
            namespace: self.namespace.clone(),
            pod: self.pod.clone(),
            events: self.event.clone(),
            verdicts: self.verdict.clone(),
            codes: self.code.clone(),
            slow_milliseconds: self.slow,
            trace: self.trace.clone(),
        };
        selection.to_query()
    }

    async fn show(&self, daemon: &Daemon) -> anyhow::Result<Outcome> {
        let mut left = self.count.unwrap_or(usize::MAX);
        let on_line = |line: &str| {
            self.tell(None, &serde_json::from_str(line)?, &mut left)?;
            Ok(if left == 0 { Next::Stop } else { Next::More })
        };
        daemon.lines(path::FLOWS, &self.query(), || self.headings(None), on_line).await?;
        Ok(Outcome::Good)
    }

    /// All at once, as each comes. One that breaks off is told of; the others go on.
    async fn show_all(&self, targets: Vec<Target>, kind: &str) -> anyhow::Result<Outcome> {
        let width = targets.iter().map(|target| target.name.chars().count()).max().unwrap_or(0).max(kind.len());
        let (sender, mut told) = mpsc::channel(QUEUE);
        let mut watched = JoinSet::new();
        for target in targets {
            watched.spawn(watch(target, self.query(), sender.clone()));
        }
        drop(sender);
        let (mut left, mut headed) = (self.count.unwrap_or(usize::MAX), false);
        let mut outcome = Outcome::Good;
        while let Some((node, told)) = told.recv().await {
            match told {
                StreamEvent::Begun if headed => {}
                StreamEvent::Begun => {
                    headed = true;
                    self.headings(Some((kind, width)))?;
                }
                StreamEvent::Line(line) => self.tell(Some((&node, width)), &line, &mut left)?,
                StreamEvent::Ended(error) => {
                    note(&format!("{node}: nothing more is heard: {error:#}"));
                    outcome = Outcome::Bad;
                }
            }
            if left == 0 {
                return Ok(outcome);
            }
        }
        anyhow::bail!("no daemon tells of flows any more")
    }

    fn headings(&self, of: Option<(&str, usize)>) -> anyhow::Result<()> {
        if self.output != Format::Table || self.no_headers {
            return Ok(());
        }
        let of = of.map_or_else(String::new, |(kind, width)| format!("{kind:width$}  "));
        print(&format!("{of}{}", HEADINGS.replace('|', "  ")))
    }

    fn tell(&self, node: Option<(&str, usize)>, line: &FlowLine, left: &mut usize) -> anyhow::Result<()> {
        let flow = match line {
            FlowLine::Lost { lost } => {
                let of = node.map_or_else(String::new, |(node, _)| format!("{node}: "));
                note(&format!("{of}{lost} flows were lost: too many to be shown in time"));
                return Ok(());
            }
            FlowLine::Event(flow) => flow,
        };
        match (self.output, node) {
            (Format::Table, Some((node, width))) => print(&format!("{node:width$}  {}", row(flow)))?,
            (Format::Table, None) => print(&row(flow))?,
            (format, Some((node, _))) => print_line(&OfNode { node, flow }, format)?,
            (format, None) => print_line(flow, format)?,
        }
        *left = left.saturating_sub(1);
        Ok(())
    }
}

async fn watch(target: Target, query: Vec<(&'static str, String)>, sender: mpsc::Sender<(String, StreamEvent)>) {
    let Target { name, daemon } = target;
    let ended = match daemon {
        Ok(daemon) => {
            let (queue, of) = (sender.clone(), name.clone());
            let told = move |told| {
                // A stream that is shown more slowly than it comes is cut: what the daemon's own queue lacks it tells of.
                queue.try_send((of.clone(), told)).map_err(|_| anyhow::anyhow!("flows come faster than they are shown"))
            };
            let begun = {
                let told = told.clone();
                move || told(StreamEvent::Begun)
            };
            let on_line = move |line: &str| {
                told(StreamEvent::Line(serde_json::from_str(line)?))?;
                Ok(Next::More)
            };
            daemon.lines(path::FLOWS, &query, begun, on_line).await.err()
        }
        Err(why) => Some(anyhow::anyhow!(why)),
    };
    if let Some(error) = ended {
        // Nobody listens any more where this fails.
        let _ = sender.send((name, StreamEvent::Ended(error))).await;
    }
}

/// As wide as [`row`] makes its columns.
const HEADINGS: &str = "TIME (UTC)  |EVENT  |SECURITY  |SOURCE -> DESTINATION: BYTES SENT, RECEIVED; HOW IT ENDED\n";

/// Columns for what has a bound, a sentence for the rest: the next row's widths are not known yet.
fn row(flow: &Flow) -> String {
    let Flow { talk, .. } = flow;
    let mut text = format!(
        "{:12}  {:7}  {:10}  {} -> {}",
        time_of_day(flow.at_milliseconds),
        flow.event,
        talk.security,
        name(&talk.source),
        name(&talk.destination),
    );
    if let Some(service) = &talk.service {
        text += &format!(" ({service})");
    }
    if !["opened", "dropped"].contains(&flow.event.as_str()) {
        text += &format!(": {}, {}", talk.bytes_from_client, talk.bytes_to_client);
    }
    if let Some(request) = &flow.request {
        text += &format!("; {}", in_words(request));
    }
    if let (Some(policy), Verdict::Denied) = (&talk.policy, flow.verdict()) {
        text += &format!("; {policy}");
    }
    if let Some(end) = &flow.end {
        text += &format!("; {end}");
    }
    if let Some(detail) = &flow.detail {
        text += &format!(": {detail}");
    }
    let mut text = one_line(&text);
    text.push('\n');
    text
}

/// What was asked for, what the answer was, and how long it took.
pub(crate) fn in_words(request: &RequestFlow) -> String {
    let asked = [request.method.as_deref(), request.path.as_deref()].into_iter().flatten();
    let asked: String = asked.map(|part| format!("{part} ")).collect();
    let status = match (request.status, request.grpc_status) {
        (0, _) => "no answer".to_owned(),
        (status, None) => status.to_string(),
        (status, Some(grpc)) => format!("{status} grpc {grpc}"),
    };
    let flags = if request.flags == "-" { String::new() } else { format!(" {}", request.flags) };
    let rule = request.rule.as_ref().map_or_else(String::new, |rule| format!(", {rule}"));
    let milliseconds = request.duration_microseconds as f64 / 1_000.0;
    format!("{asked}{status}{flags} in {milliseconds:.1} ms{rule}")
}

/// A pod by its name with the port, anything else by its address.
pub(crate) fn name(party: &Party) -> String {
    match (&party.namespace, &party.pod, party.address) {
        (Some(namespace), Some(pod), Some(address)) => format!("{namespace}/{pod}:{}", address.port()),
        (Some(namespace), Some(pod), None) => format!("{namespace}/{pod}"),
        (_, _, Some(address)) => address.to_string(),
        _ => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use mesh_admin::Talk;

    use super::*;

    #[test]
    fn a_flow_is_a_line() {
        let party = |pod: &str, address: &str| Party {
            address: Some(address.parse().expect("an address")),
            namespace: Some("shop".into()),
            pod: Some(pod.into()),
            ..Party::default()
        };
        let mut flow = Flow {
            at_milliseconds: 1_700_000_003_042,
            event: "closed".into(),
            id: 1,
            talk: Talk {
                reporter: "source".into(),
                source: party("client", "10.0.0.1:40000"),
                destination: Party { address: Some("[fd00::1]:80".parse().expect("an address")), ..Party::default() },
                service: None,
                original_destination: None,
                security: "none".into(),
                policy: None,
                bytes_from_client: 7,
                bytes_to_client: 9,
            },
            end: Some("closed".into()),
            detail: None,
            request: None,
        };
        let expected = "22:13:23.042  closed   none        shop/client:40000 -> [fd00::1]:80: 7, 9; closed\n";
        assert_eq!(row(&flow), expected);
        flow.detail = Some("because\nof\x1b[31m".into());
        assert_eq!(row(&flow).lines().count(), 1);
        assert!(row(&flow).ends_with("; closed: because of [31m\n"));
        let asked = RequestFlow {
            status: 403,
            flags: "RBAC".into(),
            duration_microseconds: 1_500,
            method: Some("GET".into()),
            path: Some("/x".into()),
            ..RequestFlow::default()
        };
        (flow.request, flow.end, flow.detail) = (Some(Box::new(asked)), None, None);
        flow.talk.policy = Some("shop/readers".into());
        assert!(row(&flow).ends_with(": 7, 9; GET /x 403 RBAC in 1.5 ms; shop/readers\n"), "{}", row(&flow));
    }
}
