//! One answer, from the send to its end: whatever comes first of bytes, deadlines and the run's end.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::SystemTime;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::client::conn::TrySendError;
use hyper::{Request, Response};

use super::RequestBody;
use super::answer::{Answer, Stop};
use super::cancellation::Cancellation;
use super::deadlines::{self, Alarm};
use super::failure::{self, During};
use super::stamped::Stamp;
use crate::clock::RunClock;
use crate::exchange::Patience;

/// What hyper makes of a request: its answer, or why not, with the request if it was not sent.
pub(super) type Sent = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>;

/// What every answer is driven with.
pub(super) struct Means<'a> {
    pub(super) clock: RunClock,
    pub(super) stamp: &'a Stamp,
    pub(super) cancellation: &'a Cancellation,
    pub(super) patience: &'a Patience,
}

/// How driving ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Driven {
    /// The answer came to a stop.
    Stopped(Stop),
    /// The connection was closed, and nothing of the request had been sent.
    NotSent(String),
}

/// Takes what comes into the answer, until no more does. `connection` is polled
/// along if nobody else does that: it saves a task, and a wake-up for each piece.
pub(super) async fn drive<C, H>(
    means: &Means<'_>,
    mut connection: Option<Pin<&mut C>>,
    head: H,
    answer: &mut Answer,
) -> Driven
where
    C: Future<Output = hyper::Result<()>>,
    H: Future<Output = Sent>,
{
    let mut head = pin!(head);
    let mut body = None;
    let mut cancelled = pin!(means.cancellation.cancelled());
    let mut alarm = Alarm::default();
    alarm.ring_by(next(means, answer), means.clock);
    poll_fn(|context| {
        loop {
            poll_connection(&mut connection, context);
            let progress = match &mut body {
                None => poll_head(means, head.as_mut(), &mut body, answer, context),
                Some(body) => poll_body(means, body, answer, context),
            };
            match progress {
                Poll::Ready(Some(driven)) => return Poll::Ready(driven),
                Poll::Ready(None) => {}
                Poll::Pending => break,
            }
            // Only at the head and at the end of a stream can a deadline come nearer.
            if answer.is_done() || !answer.has_output() {
                alarm.ring_by(next(means, answer), means.clock);
            }
        }
        if cancelled.as_mut().poll(context).is_ready() {
            return Poll::Ready(Driven::Stopped(Stop::Cancelled));
        }
        poll_alarm(means, &mut alarm, answer, context).map(Driven::Stopped)
    })
    .await
}

fn next(means: &Means<'_>, answer: &Answer) -> Option<foresail_core::time::Nanos> {
    deadlines::next(means.patience, answer).map(|(at, _)| at)
}

/// What fails in a connection fails its request as well, and is told there.
fn poll_connection<C>(connection: &mut Option<Pin<&mut C>>, context: &mut Context<'_>)
where
    C: Future<Output = hyper::Result<()>>,
{
    if let Some(polled) = connection
        && polled.as_mut().poll(context).is_ready()
    {
        *connection = None;
    }
}

/// Ready with nothing: it went on, and there may be more.
fn poll_head(
    means: &Means<'_>,
    head: Pin<&mut impl Future<Output = Sent>>,
    body: &mut Option<Incoming>,
    answer: &mut Answer,
    context: &mut Context<'_>,
) -> Poll<Option<Driven>> {
    head.poll(context).map(|sent| match sent {
        Ok(response) => {
            let (head, incoming) = response.into_parts();
            let at = means.stamp.get();
            answer.take_head(head.status.as_u16(), &head.headers, at, SystemTime::now);
            *body = Some(incoming);
            None
        }
        Err(mut failed) => {
            let request = failed.take_message();
            let stop = failure::stop(failed.error(), During::Head);
            Some(match (request, stop) {
                (Some(_), Stop::Reset(message)) => Driven::NotSent(message),
                (_, stop) => Driven::Stopped(stop),
            })
        }
    })
}

fn poll_body(
    means: &Means<'_>,
    body: &mut Incoming,
    answer: &mut Answer,
    context: &mut Context<'_>,
) -> Poll<Option<Driven>> {
    let stopped = |stop| Poll::Ready(Some(Driven::Stopped(stop)));
    match Pin::new(body).poll_frame(context) {
        Poll::Pending => Poll::Pending,
        Poll::Ready(None) => stopped(Stop::End),
        Poll::Ready(Some(Err(error))) => stopped(failure::stop(&error, During::Body)),
        Poll::Ready(Some(Ok(frame))) => {
            let piece: Option<&Bytes> = frame.data_ref();
            answer.take(piece.map_or(&[], |piece| piece), means.stamp.get());
            match answer.is_hopeless() {
                true => stopped(Stop::End),
                false => Poll::Ready(None),
            }
        }
    }
}

/// Ready when it is time to give up. A timer that rings early is set anew.
fn poll_alarm(
    means: &Means<'_>,
    alarm: &mut Alarm,
    answer: &Answer,
    context: &mut Context<'_>,
) -> Poll<Stop> {
    while alarm.poll(context).is_ready() {
        match deadlines::next(means.patience, answer) {
            Some((at, stop)) if at <= means.clock.now() => return Poll::Ready(stop),
            later => alarm.ring_by(later.map(|(at, _)| at), means.clock),
        }
    }
    Poll::Pending
}
