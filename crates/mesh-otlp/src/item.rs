//! What a collector takes, by OTLP's services: spans, and records of logs.

use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse},
        trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse},
    },
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};

use crate::Source;

/// One of many that a request carries.
pub trait Item: Sized + Send + 'static {
    /// The request.
    type Request: prost::Message + Send + Sync + 'static;
    /// The collector's answer.
    type Response: prost::Message + Default + Send + Sync + 'static;
    /// What they are called in logs.
    const NAME: &'static str;
    /// The path of OTLP over HTTP, where none is given.
    const HTTP_PATH: &'static str;
    /// The method of OTLP over gRPC.
    const GRPC_METHOD: &'static str;

    /// One request for all.
    fn request(source: &Source, all: Vec<Self>) -> Self::Request;
    /// How many of them the collector did not want.
    fn rejected(response: &Self::Response) -> i64;
}

impl Item for Span {
    type Request = ExportTraceServiceRequest;
    type Response = ExportTraceServiceResponse;
    const NAME: &'static str = "spans";
    const HTTP_PATH: &'static str = "v1/traces";
    const GRPC_METHOD: &'static str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

    fn request(source: &Source, spans: Vec<Self>) -> ExportTraceServiceRequest {
        let scope_spans = vec![ScopeSpans { scope: Some(source.scope()), spans, ..ScopeSpans::default() }];
        let resource = Some(source.resource());
        ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }],
        }
    }

    fn rejected(response: &ExportTraceServiceResponse) -> i64 {
        response.partial_success.as_ref().map_or(0, |partial| partial.rejected_spans)
    }
}

impl Item for LogRecord {
    type Request = ExportLogsServiceRequest;
    type Response = ExportLogsServiceResponse;
    const NAME: &'static str = "lines";
    const HTTP_PATH: &'static str = "v1/logs";
    const GRPC_METHOD: &'static str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

    fn request(source: &Source, log_records: Vec<Self>) -> ExportLogsServiceRequest {
        let scope_logs = vec![ScopeLogs { scope: Some(source.scope()), log_records, ..ScopeLogs::default() }];
        let resource = Some(source.resource());
        ExportLogsServiceRequest {
            resource_logs: vec![ResourceLogs { resource, scope_logs, ..ResourceLogs::default() }],
        }
    }

    fn rejected(response: &ExportLogsServiceResponse) -> i64 {
        response.partial_success.as_ref().map_or(0, |partial| partial.rejected_log_records)
    }
}
