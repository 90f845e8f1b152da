//! Files by which programs find the API server and show who they are.

use std::path::Path;

use anyhow::Result;
use serde_json::json;

use crate::certificates::Pair;
use crate::home;

/// Writes a kubeconfig; JSON is YAML.
pub(crate) fn write(path: &Path, server: &str, root: &Path, user: &Pair) -> Result<()> {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "mesh-kube", "cluster": {"server": server, "certificate-authority": root}}],
        "users": [{
            "name": "user",
            "user": {"client-certificate": user.certificate, "client-key": user.key},
        }],
        "contexts": [{"name": "mesh-kube", "context": {"cluster": "mesh-kube", "user": "user"}}],
        "current-context": "mesh-kube",
    });
    home::write(path, &serde_json::to_string_pretty(&config)?)?;
    Ok(())
}
