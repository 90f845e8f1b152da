//! The flags by which a program takes its configuration from mesh-control.

use mesh_ca::{AuthorityError, IdentityArgs, Link, RemoteSettings};
use mesh_config::Options;
use mesh_transport::TrustFeed;
use tokio::sync::mpsc;

use crate::client::{Beside, Following, follow};
use crate::proto::Node;

/// Where mesh-control is asked for the configuration.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ControlArgs {
    /// Address of mesh-control, which tells of the configuration; may be given several times, or with commas between: where one
    /// does not answer, the next is asked. Its certificate is judged by --ca-root and --ca-name, and it is shown --ca-token.
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',', requires = "ca_root", requires = "ca_token")]
    pub control_address: Vec<String>,
}

impl ControlArgs {
    /// The configuration as mesh-control tells of it, from the first on, which this waits for. `id` is the program's own name
    /// among those who are told, `trust` what it knows of roots beside the file, `beside` what is not served.
    ///
    /// # Errors
    /// A flag is missing, or says nothing that can be used.
    pub async fn follow(
        &self,
        identity: &IdentityArgs,
        trust: &TrustFeed,
        (program, id): (&str, &str),
        options: Options,
        beside: mpsc::Receiver<Beside>,
    ) -> Result<Following, AuthorityError> {
        let of = |address: &String| {
            let settings = RemoteSettings {
                address: address.clone(),
                name: identity.ca_name.clone(),
                // The parser has seen to it that both are there.
                root: identity.ca_root.clone().unwrap_or_default(),
                token: identity.ca_token.clone().unwrap_or_default(),
            };
            Link::new(&settings, trust.clone())
        };
        let links = self.control_address.iter().map(of).collect::<Result<_, _>>()?;
        let node = Node {
            id: id.to_owned(),
            user_agent_name: program.to_owned(),
            user_agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        Ok(follow(links, node, options, beside).await)
    }
}
