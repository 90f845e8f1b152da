//! What each service does.

mod account;
mod audit;
mod authentication;
mod fraud_detection;
mod notification;
mod payment;
mod risk;
mod transaction;

use hyper::StatusCode;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::http::{self, CallError, Refusal};
use crate::service::Service;

/// Serves for ever.
pub async fn serve(service: Service, listener: TcpListener) {
    let name = service.name();
    match service {
        Service::Authentication => http::serve(listener, name, authentication::Authentication).await,
        Service::Account => http::serve(listener, name, account::Accounts::open()).await,
        Service::Payment => http::serve(listener, name, payment::Payments).await,
        Service::Transaction => http::serve(listener, name, transaction::Transactions).await,
        Service::FraudDetection => http::serve(listener, name, fraud_detection::FraudDetection).await,
        Service::Risk => http::serve(listener, name, risk::Risk).await,
        Service::Notification => http::serve(listener, name, notification::Notifications::default()).await,
        Service::Audit => http::serve(listener, name, audit::Records::default()).await,
    }
}

/// Has another service do something; its refusal is passed on, whatever broke is a bad gateway.
async fn ask(service: Service, path: &str, body: &Value) -> Result<Value, Refusal> {
    http::post(&service.address(), path, body).await.map_err(|error| match error {
        CallError::Refused { status, ref body, .. } if status.is_client_error() => {
            (status, body["error"].as_str().map_or_else(|| error.to_string(), str::to_owned))
        }
        error => (StatusCode::BAD_GATEWAY, error.to_string()),
    })
}
