//! One request over a good handshake, by a proper HTTP/2 client.

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{Method, Request, Uri, Version};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::peer::PATIENCE;

/// Sends it and returns the status.
pub(crate) async fn ask(stream: TlsStream<TcpStream>, method: &str, target: &str, headers: &[String]) -> Result<u16> {
    let (sender, connection) = h2::client::handshake(stream).await.context("preface")?;
    tokio::spawn(connection);
    let mut sender: h2::client::SendRequest<Bytes> = sender.ready().await?;
    let method: Method = method.parse()?;
    let uri: Uri = if method == Method::CONNECT {
        Uri::builder().authority(target).build()?
    } else {
        Uri::builder().scheme("https").authority(target).path_and_query("/").build()?
    };
    let mut request = Request::builder().version(Version::HTTP_2).method(method).uri(uri);
    for header in headers {
        let (name, value) = header.split_once(':').context("a header is NAME:VALUE")?;
        request = request.header(name, value.trim());
    }
    let (response, _send) = sender.send_request(request.body(())?, false)?;
    let response = timeout(PATIENCE, response).await.context("no answer")??;
    Ok(response.status().as_u16())
}
