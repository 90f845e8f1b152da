//! One replica asks another what is in force at those whom that one tells.

use std::fmt;

use http::uri::PathAndQuery;
use mesh_ca::{Gatekeeper, Link};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::in_force::Count;
use crate::proto::{IN_FORCE, InForceRequest, InForceResponse, Wanted};
use crate::subscribers::Subscribers;

/// Resources that one question may be about.
pub const MAX_WANTED: usize = 1024;
/// The longest question that is read: names of Kubernetes' objects have some 600 octets at most.
pub(crate) const MAX_QUESTION: usize = 1 << 20;
/// Questions, or answers, that wait to be sent: each is answered before the next is asked.
const QUEUE: usize = 1;

/// A conversation with another replica, which has seen once who asks. It ends when this is dropped.
pub struct Inquiry {
    questions: mpsc::Sender<InForceRequest>,
    answers: Streaming<InForceResponse>,
}

impl fmt::Debug for Inquiry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inquiry").finish_non_exhaustive()
    }
}

impl Inquiry {
    /// Begins one with the replica at the other end of a link.
    ///
    /// # Errors
    /// It cannot be reached, does not know who asks, or does not know the question.
    pub async fn begin(link: &Link) -> Result<Self, Status> {
        let (questions, outgoing) = mpsc::channel(QUEUE);
        let mut grpc = link.grpc();
        grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
        let request = link.with_token(ReceiverStream::new(outgoing)).await?;
        let codec = ProstCodec::<InForceRequest, InForceResponse>::default();
        let answers = grpc.streaming(request, PathAndQuery::from_static(IN_FORCE), codec).await?.into_inner();
        Ok(Self { questions, answers })
    }

    /// At how many of those whom it tells each of these, [`MAX_WANTED`] at most, is in force.
    ///
    /// # Errors
    /// The conversation is over.
    pub async fn ask(&mut self, wanted: Vec<Wanted>) -> Result<Vec<Count>, Status> {
        let ended = || Status::cancelled("it ended the conversation");
        let asked = wanted.len();
        self.questions.send(InForceRequest { wanted }).await.map_err(|_| ended())?;
        let answer = self.answers.message().await?.ok_or_else(ended)?;
        if answer.current.len() != asked {
            return Err(Status::internal(format!("{} answers to {asked} questions", answer.current.len())));
        }
        let number = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
        let all = number(answer.all);
        Ok(answer.current.into_iter().map(|current| Count { current: number(current), all }).collect())
    }
}

pub(crate) type Answers = ReceiverStream<Result<InForceResponse, Status>>;

/// Answers another replica, if it is one, for as long as it asks.
pub(crate) async fn answer(
    gatekeeper: &impl Gatekeeper,
    subscribers: Subscribers,
    request: Request<Streaming<InForceRequest>>,
) -> Result<Response<Answers>, Status> {
    let refused = |status: &Status| tracing::warn!(reason = status.message(), "a replica's question refused");
    mesh_ca::replica(gatekeeper, request.metadata()).await.inspect_err(refused)?;
    let mut questions = request.into_inner();
    let (sender, answers) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        while let Ok(Some(question)) = questions.message().await {
            let answer = if question.wanted.len() > MAX_WANTED {
                Err(Status::invalid_argument(format!("a question about more than {MAX_WANTED} resources")))
            } else {
                Ok(subscribers.in_force().answer(&question))
            };
            if sender.send(answer).await.is_err() {
                return;
            }
        }
    });
    Ok(Response::new(ReceiverStream::new(answers)))
}
