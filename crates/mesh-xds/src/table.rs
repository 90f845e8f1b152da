//! What there is to serve: all resources of one type at one moment.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use aws_lc_rs::digest;
use bytes::Bytes;
use mesh_config::Source;
use mesh_core::ordered::{Named, Ordered};
use prost::Message as _;

use crate::proto;

/// The type of our own resources, a Kubernetes object each: `mesh.config.v1.Object`.
pub const OBJECT_TYPE: &str = "type.googleapis.com/mesh.config.v1.Object";

/// What a resource says. Two of one content have one version, whoever serves them.
#[derive(Debug, Clone)]
pub enum Body {
    /// An object, which is written as it is sent.
    Object(Arc<Source>),
    /// A message of another type.
    Message(Bytes),
    /// Not what is served: a subscriber has it in another version.
    Other,
}

/// A resource.
#[derive(Debug, Clone)]
pub struct Resource {
    name: Box<str>,
    version: u64,
    body: Body,
    /// Other names, which follow from what it says.
    aliases: Box<[Box<str>]>,
}

/// Resources of one name are equal when their versions are.
impl PartialEq for Resource {
    fn eq(&self, other: &Self) -> bool {
        (self.version, &self.name) == (other.version, &other.name) && self.is_served() == other.is_served()
    }
}

impl Named for Resource {
    fn key(&self) -> (&str, &str) {
        ("", &self.name)
    }
}

impl Resource {
    /// A resource of that name; its version follows from what it says.
    #[must_use]
    pub fn new(name: &str, body: Body) -> Self {
        let version = match &body {
            // No JSON has an octet 0.
            Body::Object(source) => match &source.refused {
                Some(refused) => version_of(&[source.object.as_bytes(), &[0], refused.as_bytes()]),
                None => version_of(&[source.object.as_bytes()]),
            },
            Body::Message(message) => version_of(&[message]),
            Body::Other => version_of(&[]),
        };
        Self { name: name.into(), version, body, aliases: Box::default() }
    }

    /// The same with other names beside its own.
    #[must_use]
    pub fn known_as(mut self, aliases: Box<[Box<str>]>) -> Self {
        self.aliases = aliases;
        self
    }

    /// What a subscriber says that it has.
    pub(crate) fn held(name: &str, version: u64) -> Self {
        Self { name: name.into(), version, body: Body::Other, aliases: Box::default() }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The hash of what it says, which is the same whoever serves it.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    const fn is_served(&self) -> bool {
        !matches!(self.body, Body::Other)
    }

    /// Octets that it takes in a response, roughly.
    pub(crate) fn weight(&self) -> usize {
        const AROUND: usize = 128;
        let body = match &self.body {
            Body::Object(source) => source.object.len() + source.refused.as_ref().map_or(0, |refused| refused.len()),
            Body::Message(message) => message.len(),
            Body::Other => 0,
        };
        AROUND + self.name.len() + body
    }

    pub(crate) fn message(&self, type_url: &str) -> proto::Resource {
        let value = match &self.body {
            Body::Object(source) => {
                let refused = source.refused.as_deref().map(str::to_owned);
                proto::Object { object: source.object.as_ref().to_owned(), refused }.encode_to_vec().into()
            }
            Body::Message(message) => message.clone(),
            Body::Other => Bytes::new(),
        };
        proto::Resource {
            version: format!("{:016x}", self.version),
            resource: Some(proto::Any { type_url: type_url.to_owned(), value }),
            name: self.name.to_string(),
            aliases: self.aliases.iter().map(ToString::to_string).collect(),
        }
    }

    /// What the resource adds to a table's digest.
    fn digest(&self) -> u64 {
        version_of(&[&self.version.to_be_bytes(), self.name.as_bytes()])
    }
}

/// A number that only these octets have.
pub(crate) fn version_of(parts: &[&[u8]]) -> u64 {
    let mut context = digest::Context::new(&digest::SHA256);
    parts.iter().for_each(|part| context.update(part));
    context.finish().as_ref().iter().take(8).fold(0, |number, octet| number << 8 | u64::from(*octet))
}

/// Which state: a count by the one who serves it, and a digest that all have in common who serve the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Version {
    /// Counts the changes of one replica's state, from 1.
    pub generation: u64,
    /// Of the names and versions of all resources, in whatever order they came.
    pub digest: u64,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:016x}", self.generation, self.digest)
    }
}

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('-').and_then(|(generation, digest)| {
            Some(Self { generation: generation.parse().ok()?, digest: u64::from_str_radix(digest, 16).ok()? })
        });
        parts.ok_or_else(|| format!("{text:?} is no version such as 17-00c0ffee00c0ffee"))
    }
}

/// All resources of a type. A copy shares with what it is of.
#[derive(Debug, Clone, Default)]
pub struct Table {
    resources: Ordered<Resource>,
    version: Version,
}

impl Table {
    /// Of which state it is.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.version
    }

    /// The resources, in the order of their names.
    #[must_use]
    pub const fn resources(&self) -> &Ordered<Resource> {
        &self.resources
    }

    /// Puts a resource in, in the place of one of its name.
    pub fn put(&mut self, resource: Resource) {
        self.remove(resource.name());
        self.version.digest = self.version.digest.wrapping_add(resource.digest());
        self.resources.insert(Arc::new(resource));
    }

    /// Takes a resource out.
    pub fn remove(&mut self, name: &str) {
        if let Some(resource) = self.resources.remove(("", name)) {
            self.version.digest = self.version.digest.wrapping_sub(resource.digest());
        }
    }

    /// The same as the state of that generation.
    #[must_use]
    pub const fn at(mut self, generation: u64) -> Self {
        self.version.generation = generation;
        self
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Arc<Resource>> {
        self.resources.get(("", name))
    }

    /// What a subscriber has that says to have those versions: what is the same as here is shared.
    pub(crate) fn as_held<'a>(&self, held: impl Iterator<Item = (&'a str, u64)>) -> Self {
        let mut table = Self::default();
        for (name, version) in held {
            let same = self.get(name).filter(|resource| resource.version() == version);
            let resource = same.map_or_else(|| Arc::new(Resource::held(name, version)), Arc::clone);
            table.resources.insert(resource);
        }
        table
    }
}
