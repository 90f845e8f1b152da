//! The messages on the wire, as protobuf: of Envoy's (`envoy/service/discovery/v3/discovery.proto`), the fields that are
//! written or read, and our own.

use std::collections::HashMap;

use bytes::Bytes;

/// The path of the one method: all types on one stream.
pub(crate) const DELTA_AGGREGATED_RESOURCES: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

/// The path by which replicas ask each other what is in force: questions on one stream, each answered in its turn.
pub(crate) const IN_FORCE: &str = "/mesh.config.v1.Replicas/InForce";

/// `envoy.service.discovery.v3.DeltaDiscoveryRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeltaDiscoveryRequest {
    /// Who asks, in the first request of a stream.
    #[prost(message, optional, tag = "1")]
    pub node: Option<Node>,
    /// Which type of resource this is about.
    #[prost(string, tag = "2")]
    pub type_url: String,
    /// Names that are subscribed to from now on; `*` for all, as is the first request of a type without any.
    #[prost(string, repeated, tag = "3")]
    pub resource_names_subscribe: Vec<String>,
    /// Names that are not any more.
    #[prost(string, repeated, tag = "4")]
    pub resource_names_unsubscribe: Vec<String>,
    /// What the subscriber has from an earlier stream: versions by name. In the first request of a type alone.
    #[prost(map = "string, string", tag = "5")]
    pub initial_resource_versions: HashMap<String, String>,
    /// The response that this answers, if it answers one.
    #[prost(string, tag = "6")]
    pub response_nonce: String,
    /// Why some of that response was not taken; none where all of it was.
    #[prost(message, optional, tag = "7")]
    pub error_detail: Option<Status>,
}

/// `envoy.config.core.v3.Node`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Node {
    /// The subscriber's own name.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Its program.
    #[prost(string, tag = "6")]
    pub user_agent_name: String,
    /// Its program's version.
    #[prost(string, tag = "7")]
    pub user_agent_version: String,
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Status {
    /// A code of gRPC's.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// For people.
    #[prost(string, tag = "2")]
    pub message: String,
}

/// `envoy.service.discovery.v3.DeltaDiscoveryResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeltaDiscoveryResponse {
    /// The version of the state that the subscriber has with this response as a whole; empty where more of it is to come.
    #[prost(string, tag = "1")]
    pub system_version_info: String,
    /// Resources that are new, or changed.
    #[prost(message, repeated, tag = "2")]
    pub resources: Vec<Resource>,
    /// Their type.
    #[prost(string, tag = "4")]
    pub type_url: String,
    /// By which the response is answered.
    #[prost(string, tag = "5")]
    pub nonce: String,
    /// Names of resources that are gone, or of which there are none.
    #[prost(string, repeated, tag = "6")]
    pub removed_resources: Vec<String>,
}

/// `envoy.service.discovery.v3.Resource`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Resource {
    /// The version of this resource.
    #[prost(string, tag = "1")]
    pub version: String,
    /// What it says.
    #[prost(message, optional, tag = "2")]
    pub resource: Option<Any>,
    /// Its name among those of its type.
    #[prost(string, tag = "3")]
    pub name: String,
    /// Other names of it.
    #[prost(string, repeated, tag = "4")]
    pub aliases: Vec<String>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Any {
    /// The type of the message.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// The message.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

/// `mesh.config.v1.Object`, our own: an object in force, as [`mesh_config::Source`] has it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Object {
    /// The version in force, in JSON.
    #[prost(string, tag = "1")]
    pub object: String,
    /// The newer version, in JSON, which cannot be read.
    #[prost(string, optional, tag = "2")]
    pub refused: Option<String>,
}

/// `mesh.config.v1.InForceRequest`, our own: at how many subscribers are these in force?
#[derive(Clone, PartialEq, prost::Message)]
pub struct InForceRequest {
    /// The resources that are asked about.
    #[prost(message, repeated, tag = "1")]
    pub wanted: Vec<Wanted>,
}

/// `mesh.config.v1.Wanted`, our own: one of our resources in one version.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Wanted {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its version, the hash of what it says.
    #[prost(fixed64, tag = "2")]
    pub version: u64,
}

/// `mesh.config.v1.InForceResponse`, our own.
#[derive(Clone, PartialEq, prost::Message)]
pub struct InForceResponse {
    /// How many are told of our own resources.
    #[prost(uint32, tag = "1")]
    pub all: u32,
    /// At how many of them is in force what was asked about, in the order of the question.
    #[prost(uint32, repeated, tag = "2")]
    pub current: Vec<u32>,
}
