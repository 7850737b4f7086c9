//! A collector on this machine: takes OTLP over HTTP and keeps what came.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

/// A span as it came.
#[derive(Debug, Clone)]
pub(crate) struct Came {
    pub(crate) service: String,
    pub(crate) span: Span,
}

/// The text, or the number as text, of an attribute; nothing if it is not there.
pub(crate) fn value(attributes: &[KeyValue], name: &str) -> String {
    let found = attributes.iter().find(|pair| pair.key == name).and_then(|pair| pair.value.as_ref()?.value.as_ref());
    match found {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        _ => String::new(),
    }
}

impl Came {
    pub(crate) fn get(&self, name: &str) -> String {
        value(&self.span.attributes, name)
    }

    pub(crate) fn trace(&self) -> String {
        hex(&self.span.trace_id)
    }

    pub(crate) fn id(&self) -> String {
        hex(&self.span.span_id)
    }

    /// Trace and span that it is linked to.
    pub(crate) fn link(&self) -> Option<(String, String)> {
        assert!(self.span.links.len() <= 1, "{:?}", self.span);
        self.span.links.first().map(|link| (hex(&link.trace_id), hex(&link.span_id)))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What it was sent.
#[derive(Clone, Default)]
pub(crate) struct Collector {
    spans: Arc<Mutex<Vec<Came>>>,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Collector {
    /// Listens; gives the URL too. Its threads end with the process.
    pub(crate) fn start() -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let collector = Self::default();
        let serving = collector.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let serving = serving.clone();
                std::thread::spawn(move || serving.serve(&stream));
            }
        });
        (collector, url)
    }

    pub(crate) fn spans(&self) -> Vec<Came> {
        self.spans.lock().unwrap().clone()
    }

    /// The requests' first lines and headers.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    fn serve(&self, stream: &TcpStream) {
        let (mut reader, mut writer) = (BufReader::new(stream), stream);
        loop {
            let (mut head, mut length) = (String::new(), 0);
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).unwrap_or(0) == 0 {
                    return;
                }
                if let Some(bytes) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = bytes.trim().parse().unwrap();
                }
                if line.trim().is_empty() {
                    break;
                }
                head += &line;
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            self.heads.lock().unwrap().push(head);
            let request = ExportTraceServiceRequest::decode(body.as_slice()).unwrap();
            for of_resource in request.resource_spans {
                let service = value(&of_resource.resource.unwrap().attributes, "service.name");
                let spans = of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
                let came = spans.map(|span| Came { service: service.clone(), span });
                self.spans.lock().unwrap().extend(came);
            }
            let ok = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
            writer.write_all(ok).unwrap();
        }
    }
}
