//! The command line of the mesh.
#![forbid(unsafe_code)]

mod analyze;
mod bug_report;
mod cluster;
mod completion;
mod daemon;
mod dashboard;
mod describe;
mod fleet;
mod flows;
mod generation;
mod install;
mod join;
mod list;
mod log;
mod manifests;
mod output;
mod precheck;
mod reach;
mod resolve;
mod route;
mod status;
mod top;
mod trace_request;
mod version;
mod waypoint;
mod why;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use mesh_admin::{Certificate, Connection, Policy, Service, Workload};

use crate::cluster::ClusterArguments;

/// The name by which kubectl finds this program as `kubectl mesh`.
const PLUGIN: &str = "kubectl-mesh";
/// Exit codes, for scripts.
const EXIT_CODES: &str = "\
Exit codes:
  0  done; status and waypoint status: nothing wants attention, status --generation: it is in force everywhere, precheck and install: nothing is missing, analyze: no errors, resolve: the connection goes somewhere, route: somebody answers the request, trace-request: somebody has answered it and nobody refused it, why and authz: it is allowed, describe: nothing wants attention, join: nothing open is refused, bug-report: all is in it
  1  status and waypoint status: something wants attention, precheck and install: something is missing, analyze: errors among the findings, resolve: the connection is refused, route: nobody answers the request, trace-request: it was refused or got no answer, why and authz: it is refused, describe: something wants attention, join: connections that are open would be refused, bug-report: something is not in it; anything asked of several: one of them does not answer
  2  wrong usage, no daemon is reached, or something cannot be read or written";

#[derive(Debug, Parser)]
#[command(name = "mesh-ctl", version, about = "Looks into a mesh", after_help = EXIT_CODES)]
struct Arguments {
    #[command(flatten)]
    cluster: ClusterArguments,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Says how the node's daemon is, and what wants attention.
    Status(status::StatusArguments),
    /// Workloads: the pods of the cluster.
    #[command(subcommand, visible_aliases = ["workloads", "wl"])]
    Workload(list::Verb),
    /// Services and their endpoints.
    #[command(subcommand, visible_aliases = ["services", "svc"])]
    Service(list::Verb),
    /// Policies: AuthorizationPolicy, PeerAuthentication, and DestinationRule where it speaks of TLS.
    #[command(subcommand, visible_aliases = ["policies", "pol"])]
    Policy(list::Verb),
    /// Certificates that the daemon holds.
    #[command(subcommand, visible_aliases = ["certificates", "cert"])]
    Certificate(list::Verb),
    /// Connections that the daemon carries now.
    #[command(subcommand, visible_aliases = ["connections", "conn"])]
    Connection(list::Verb),
    /// Shows connections as they open, end and are refused, from now on.
    #[command(visible_alias = "flow")]
    Flows(flows::Flows),
    /// Shows what goes on by Service, live: requests, errors, durations, connections, bytes, the share in mutual TLS.
    Top(top::Top),
    /// Serves a page on loopback: the live graph of services, certificates, what is denied and why.
    Dashboard(dashboard::Dashboard),
    /// Says what becomes of a connection or a request: where it goes, how, which policies are asked, and what stops it.
    Why(why::Question),
    /// Asks the policies alone.
    #[command(subcommand)]
    Authz(why::Authz),
    /// What the daemon logs.
    #[command(subcommand)]
    Log(log::Log),
    /// Says what is wrong with manifests or a cluster's objects, and what to do.
    Analyze(analyze::Analyze),
    /// Says where a connection to an address goes, and how.
    Resolve(resolve::Resolve),
    /// Says who reads a request, which policies, limits and rule it meets, and who gets it, without sending it.
    Route(route::Route),
    /// Sends one request from inside a pod, marked for tracing, and shows what each hop tells of it.
    TraceRequest(trace_request::TraceRequest),
    #[command(hide = true)]
    SendRequest(trace_request::SendRequest),
    /// Everything that the mesh makes of a pod or a service.
    #[command(subcommand, visible_alias = "desc")]
    Describe(describe::Describe),
    /// Puts a namespace into the mesh, after saying what that means and what STRICT would refuse.
    Join(join::Join),
    /// Makes, lists and looks into waypoints and gateways.
    #[command(subcommand, visible_alias = "gateway")]
    Waypoint(waypoint::Waypoint),
    /// Installs the mesh on a cluster, or upgrades it.
    Install(install::Install),
    /// Takes the mesh off a cluster.
    Uninstall(install::Uninstall),
    /// Writes an archive about a cluster's mesh for somebody who was not there, with secrets left out.
    BugReport(bug_report::BugReport),
    /// Says what a cluster or this machine has of what the mesh needs, and what to do about what it lacks.
    Precheck(precheck::PrecheckArguments),
    /// Prints this program's version, and the daemon's.
    Version(version::Version),
    /// Prints a script that completes commands in a shell.
    Completion(completion::Completion),
}

/// How a command ended that did its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Good,
    Bad,
}

fn main() -> ExitCode {
    let arguments = Arguments::from_arg_matches(&command().get_matches()).unwrap_or_else(|error| error.exit());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start");
    let done = runtime.and_then(|runtime| runtime.block_on(run(&arguments)));
    match done {
        Ok(Outcome::Good) => ExitCode::SUCCESS,
        Ok(Outcome::Bad) => ExitCode::from(1),
        // The reader has seen enough.
        Err(error) if output::is_reader_left(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&error);
            ExitCode::from(2)
        }
    }
}

/// The command line. By the name that kubectl looks for (`kubectl-mesh`), it is kubectl's own command.
fn command() -> clap::Command {
    let named = std::env::args_os().next().map(PathBuf::from);
    let name = named.as_deref().and_then(Path::file_name).and_then(OsStr::to_str);
    let command = Arguments::command();
    if name == Some(PLUGIN) { command.bin_name("kubectl mesh") } else { command }
}

async fn run(Arguments { cluster, command }: &Arguments) -> anyhow::Result<Outcome> {
    match command {
        Command::Status(status) => status.run(cluster).await,
        Command::Workload(verb) => verb.run::<Workload>(cluster).await,
        Command::Service(verb) => verb.run::<Service>(cluster).await,
        Command::Policy(verb) => verb.run::<Policy>(cluster).await,
        Command::Certificate(verb) => verb.run::<Certificate>(cluster).await,
        Command::Connection(verb) => verb.run::<Connection>(cluster).await,
        Command::Flows(flows) => flows.run(cluster).await,
        Command::Top(top) => top.run(cluster).await,
        Command::Dashboard(dashboard) => dashboard.run(cluster).await,
        Command::Why(question) => question.run(cluster).await,
        Command::Authz(authz) => authz.run(cluster).await,
        Command::Log(log) => log.run(cluster).await,
        Command::Analyze(analyze) => analyze.run(cluster).await,
        Command::Resolve(resolve) => resolve.run(),
        Command::Route(route) => route.run(cluster).await,
        Command::TraceRequest(request) => request.run(cluster).await,
        Command::SendRequest(order) => order.run().await,
        Command::Describe(describe) => describe.run(cluster).await,
        Command::Join(join) => join.run(cluster).await,
        Command::Waypoint(waypoint) => waypoint.run(cluster).await,
        Command::Install(install) => install.run(cluster).await,
        Command::Uninstall(uninstall) => uninstall.run(cluster).await,
        Command::BugReport(report) => report.run(cluster).await,
        Command::Precheck(precheck) => precheck.run(cluster).await,
        Command::Version(version) => version.run(cluster).await,
        Command::Completion(completion) => completion.run(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reference_has_every_flag() {
        mesh_docs::hold("mesh-ctl.md", &mesh_docs::flags(Arguments::command()));
    }
}
