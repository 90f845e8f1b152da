//! The cluster as it is now, read once.

use std::time::Duration;

use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams};
use mesh_config::{LiveObjects, Options, ReadKind, read_kinds};
use tokio::time::timeout;

use crate::kind_watch::{NOT_FOUND, value};

/// Objects that are asked for at once.
const PAGE: u32 = 500;
/// How long the API server may take for one page.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why the cluster cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// This user may not read a kind.
    #[error("{plural} cannot be read: {message}; it takes the right to list them in all namespaces")]
    Forbidden {
        /// The kind's plural.
        plural: String,
        /// What the API server said.
        message: String,
    },
    /// The API server does not give a kind. May be tried again.
    #[error("{plural} cannot be read: {source}")]
    Failed {
        /// The kind's plural.
        plural: String,
        /// Why.
        source: Box<kube::Error>,
    },
    /// The API server gave no answer in time. May be tried again.
    #[error("{plural} cannot be read: the API server has not answered within {} s", PATIENCE.as_secs())]
    Late {
        /// The kind's plural.
        plural: String,
    },
}

/// Reads every kind that is translated. What the cluster does not know has no objects.
///
/// # Errors
/// See [`ReadError`]: with a kind left out, findings would be about another cluster.
pub async fn read(client: &Client, options: Options) -> Result<LiveObjects, ReadError> {
    let kinds = read_kinds(&options);
    let mut objects = LiveObjects::new(options);
    for kind in kinds {
        for version in &kind.versions {
            if read_kind(client, &kind, version, &mut objects).await? {
                break;
            }
        }
    }
    Ok(objects)
}

/// Reads a kind in one version. False when the cluster does not know it.
async fn read_kind(
    client: &Client,
    kind: &ReadKind,
    version: &str,
    objects: &mut LiveObjects,
) -> Result<bool, ReadError> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(kind.group, version, kind.kind));
    let mut page = ListParams::default().limit(PAGE);
    let api: Api<DynamicObject> = match &kind.only {
        None => Api::all_with(client.clone(), &resource),
        Some((namespace, name)) => {
            page = page.fields(&format!("metadata.name={name}"));
            Api::namespaced_with(client.clone(), namespace, &resource)
        }
    };
    loop {
        let plural = resource.plural.clone();
        let list = match timeout(PATIENCE, api.list(&page)).await {
            Ok(Ok(list)) => list,
            Ok(Err(kube::Error::Api(status))) if status.code == NOT_FOUND => return Ok(false),
            Ok(Err(kube::Error::Api(status))) if status.code == 403 => {
                return Err(ReadError::Forbidden { plural, message: status.message.clone() });
            }
            Ok(Err(source)) => return Err(ReadError::Failed { plural, source: Box::new(source) }),
            Err(_elapsed) => return Err(ReadError::Late { plural }),
        };
        for object in list.items {
            let (name, value) = value(object, &resource);
            objects.apply(name, value);
        }
        match list.metadata.continue_.filter(|more| !more.is_empty()) {
            Some(more) => page.continue_token = Some(more),
            None => return Ok(true),
        }
    }
}
