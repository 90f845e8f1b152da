//! `hold`: one connection that lives through whatever happens meanwhile, or does not.

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::client::Target;
use crate::outcome::{self, Failure, Outcome};
use crate::probe::read_line;
use crate::report;

/// Prints `connected`, an `echo` for every line of input, and at last how it ended: by the end of the input (ok), or because
/// the connection did.
pub(crate) async fn run(target: &Target) -> (Outcome, Value) {
    let mut lines = 0;
    let result = hold(target, &mut lines).await;
    let report = json!({
        "operation": "hold", "outcome": outcome::of(&result), "lines": lines,
        "error": result.as_ref().err().map(ToString::to_string),
    });
    (outcome::of(&result), report)
}

async fn hold(target: &Target, lines: &mut u64) -> Result<(), Failure> {
    let limit = target.limit();
    let mut stream = timeout(limit, target.dial().connect()).await.map_err(|_| Failure::Timeout)??;
    let mut connected = json!({"event": "connected"});
    report::merge(&mut connected, &report::addresses(&stream));
    report::print(&connected);
    let mut input = BufReader::new(tokio::io::stdin()).lines();
    loop {
        let line = tokio::select! {
            line = input.next_line() => line?,
            ended = unexpected(&mut stream) => return Err(ended),
        };
        let Some(line) = line else { break };
        *lines += 1;
        let sent = format!("{lines} {line}");
        let echoed = timeout(limit, exchange(&mut stream, &sent)).await.unwrap_or(Err(Failure::Timeout))?;
        if echoed != sent {
            return Err(Failure::Mismatch(*lines));
        }
        report::print(&json!({"event": "echo", "number": lines, "text": line}));
    }
    stream.shutdown().await?;
    timeout(limit, crate::transfer::expect_end(&mut stream)).await.unwrap_or(Err(Failure::Timeout))
}

async fn exchange(stream: &mut TcpStream, line: &str) -> Result<String, Failure> {
    stream.write_all(format!("{line}\n").as_bytes()).await?;
    read_line(stream).await
}

/// Ends when the connection does, or when something comes that was not asked for.
async fn unexpected(stream: &mut TcpStream) -> Failure {
    match stream.read(&mut [0]).await {
        Ok(0) => Failure::Short { received: 0, expected: 1 },
        Ok(_) => Failure::Long,
        Err(error) => error.into(),
    }
}
