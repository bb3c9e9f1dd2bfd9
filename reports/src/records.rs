//! The records of a run: what a simulation and a measurement have in common.
//!
//! Whoever runs a deployment hands these to a [`RecordSink`], one by one, as
//! they happen. Sinks compose: `(a, b)` hands each record to both, and an
//! `Option` of a sink may be absent.

use crate::summary::Measured;

/// One request, from its intended send to its end. Times are nanoseconds since the start of the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestRecord {
    /// Position in the workload, from 0.
    pub id: u64,
    /// Intended send time.
    pub due_ns: u64,
    /// Tokens in the prompt.
    pub prompt_tokens: u32,
    /// Tokens generated. Of a completed request: as many as asked for.
    pub output_tokens: u32,
    /// Conversation, if there is one.
    pub session: Option<u64>,
    /// The adapter that it asks for: its position among those of the scenario; `None` for the base model.
    pub adapter: Option<u32>,
    /// How often it was sent: 1 unless it was tried again.
    pub attempts: u32,
    /// The replica that served it last.
    pub replica: Option<u32>,
    /// Prompt tokens found in the prefix cache at (first) admission.
    pub cached_tokens: u32,
    /// Times it was preempted.
    pub preemptions: u32,
    /// How it ended.
    pub outcome: Outcome,
    /// When its first token came.
    pub first_token_ns: Option<u64>,
    /// When it ended, however it did.
    pub end_ns: u64,
    /// Where its time went; the parts sum to `end_ns - due_ns` exactly. `None` of a measured
    /// request: seen from outside, waiting and prefill look the same.
    pub parts: Option<Parts>,
    /// What its client saw; `None` of a simulated request.
    pub wire: Option<Wire>,
}

/// What the client of a measured request saw of its last attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wire {
    /// When it was handed to an open connection; `None` if it never was.
    pub sent_ns: Option<u64>,
    /// When the last chunk that carried output came, if the answer was a stream. What ends a stream
    /// comes after it.
    pub last_output_ns: Option<u64>,
    /// The HTTP status, if an answer began.
    pub status: Option<u16>,
    /// Chunks that carried output. A chunk of several tokens is one.
    pub chunks: u32,
    /// Where the number of output tokens is from.
    pub tokens_from: TokensFrom,
    /// Whether its connection had carried others before.
    pub is_connection_reused: bool,
    /// Bytes of the answer's body.
    pub body_bytes: u64,
    /// Whether it counts: it was due inside the window that is measured.
    pub is_in_window: bool,
}

/// Who counted the output tokens of a measured request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokensFrom {
    /// The server, in `usage`.
    Usage,
    /// Nobody: each chunk that carried output was taken for one.
    Chunks,
    /// Nobody: the answer came whole, and as many as were asked for were taken for it.
    Asked,
}

/// One attempt at a measured request: a row of `attempts.csv`. Those of a request
/// that was sent once and completed are in its record already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptRecord {
    /// The request: its position in the workload.
    pub id: u64,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// When it was handed to an open connection; `None` if it never was.
    pub sent_ns: Option<u64>,
    /// How long it took to open a connection for it; `None` if there was one, or none to be had.
    pub connect_ns: Option<u64>,
    /// The HTTP status, if an answer began.
    pub status: Option<u16>,
    /// When the first chunk that carried output came.
    pub first_token_ns: Option<u64>,
    /// When it ended.
    pub end_ns: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// What `Retry-After` asked for (ns).
    pub retry_after_ns: Option<u64>,
    /// What the server or the system said; empty if it said nothing.
    pub detail: String,
}

/// Where the time of a request went, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// Earlier attempts, and waiting to try again.
    pub retry_ns: u64,
    /// On its way to the engine and back: what server and client do for it beside its steps.
    pub outside_ns: u64,
    /// Waiting while no replica was ready.
    pub cold_start_ns: u64,
    /// Waiting for its first step although a replica was ready.
    pub queue_ns: u64,
    /// Waiting at a replica for its adapter to be loaded.
    pub adapter_ns: u64,
    /// From its first step to its first token.
    pub prefill_ns: u64,
    /// From each preemption to the next token after it.
    pub preemption_ns: u64,
    /// From the first token to the end, less preemption.
    pub decode_ns: u64,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All its tokens were generated.
    Completed,
    /// Refused: prompt and output are longer than the model's context.
    RejectedTooLong,
    /// Refused: it needs more KV blocks than a replica has.
    RejectedNeverFits,
    /// Refused with 503: the deployment was at zero replicas.
    RejectedScalingUp,
    /// Refused with 503: more requests wait for a replica than may.
    RejectedQueueFull,
    /// Refused with 404: the deployment was deleted.
    RejectedDeleted,
    /// Refused: the account has reached its spend limit.
    RejectedPaused,
    /// Refused: the deployment is parked at a maximum of 0 replicas.
    RejectedParked,
    /// Cut off: its replica's drain time ran out.
    FailedDrain,
    /// Cut off: its replica crashed.
    FailedCrash,
    /// Given up by the client.
    FailedTimeout,
    /// Never served: the run ended with no replica allowed to start.
    FailedUnserved,
    /// Measured: refused with 429.
    RejectedRateLimited,
    /// Measured: refused with 503.
    RejectedUnavailable,
    /// Measured: refused with any other status below 500.
    RejectedStatus,
    /// Measured: an error of the server, 500 or above and not 503.
    FailedStatus,
    /// Measured: no connection could be had.
    FailedConnect,
    /// Measured: the connection was reset, or closed before any of the answer.
    FailedReset,
    /// Measured: the answer ended before its end.
    FailedTruncated,
    /// Measured: nothing arrived for too long in the middle of an answer.
    FailedStalled,
    /// Measured: what arrived is no answer.
    FailedGarbage,
    /// Measured: the stream told of an error.
    FailedError,
    /// Measured: in flight when the run was ended.
    FailedCancelled,
    /// Measured: not sent, because the run was ended before.
    Unsent,
}

/// A run of inter-token gaps of one batch. Step `j` of `steps` (from 0) is a gap of
/// `(first_ps + j * growth_ps) / 1000` nanoseconds, rounded down, for each of `tokens` tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gaps {
    /// The first gap (ps).
    pub first_ps: u64,
    /// What each next gap is longer by (ps).
    pub growth_ps: u64,
    /// How many gaps in a row.
    pub steps: u32,
    /// Tokens that end each gap, one a sequence.
    pub tokens: u32,
}

/// A change of state of the deployment, with its reason: one row of `timeline.csv`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// When (ns).
    pub at_ns: u64,
    /// What changed.
    pub kind: ChangeKind,
    /// The replica it happened to; `None` for the deployment as a whole.
    pub replica: Option<u32>,
    /// Why, in words.
    pub reason: String,
    /// Counts after the change.
    pub replicas: ReplicaCounts,
}

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// The autoscaler set another target.
    Target,
    /// A replica waits for a machine.
    Pending,
    /// A replica fetches image and weights.
    Downloading,
    /// A replica initialises.
    Initialising,
    /// A replica takes requests.
    Ready,
    /// A replica takes no more requests and finishes those it has.
    Draining,
    /// A replica was cancelled before it was ready.
    Cancelled,
    /// The start of a replica failed.
    StartFailed,
    /// A replica crashed.
    Crashed,
    /// The deployment as a whole was changed, paused or deleted.
    Deployment,
    /// A replica is gone; its GPUs are free.
    Gone,
}

/// How many replicas are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplicaCounts {
    /// What the autoscaler wants.
    pub target: u32,
    /// Asked for and not ready yet.
    pub starting: u32,
    /// Taking requests.
    pub ready: u32,
    /// Finishing.
    pub draining: u32,
}

/// What takes the records of a run, one by one, as they happen.
pub trait RecordSink {
    /// A request ended. Requests come in the order of their ends.
    fn request(&mut self, record: &RequestRecord);
    /// A batch generated tokens.
    fn gaps(&mut self, gaps: Gaps);
    /// The deployment changed.
    fn change(&mut self, change: &Change);
}

/// What is known of a run as a whole at its end, beside the records.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunTotals {
    /// Requests that the workload offered.
    pub offered: u64,
    /// Requests that arrived while no replica was ready, and were not refused for it.
    pub waited_for_cold_start: u64,
    /// When the last thing happened (ns).
    pub end_ns: u64,
    /// Time integral of the replicas that hold GPUs [replica ns].
    pub replica_ns: u128,
    /// Most replicas that held GPUs at once.
    pub replicas_max: u32,
    /// Replicas asked for.
    pub starts: u64,
    /// Replicas cancelled before ready, or ready and never given a request.
    pub wasted_starts: u64,
    /// Times the target turned from rising to falling or back.
    pub direction_changes: u64,
    /// Attempts to start a replica that failed.
    pub start_failures: u64,
    /// Replicas given up because they failed to start too often.
    pub starts_given_up: u64,
    /// Replicas that crashed.
    pub crashes: u64,
    /// Replicas asked for that had to wait for GPUs of the pool.
    pub waited_for_gpus: u64,
    /// How long they waited, all together, cancelled ones included [replica ns].
    pub waited_for_gpus_ns: u128,
    /// Tokens generated in attempts that were given up for another.
    pub output_tokens_retried: u64,
    /// GPU-time, split by what the GPUs did.
    pub gpu_ns: GpuTime,
    /// What the run costs [1e-9 USD].
    pub cost_nanodollars: u128,
    /// What the adapters of the replicas did; `None` if none were deployed.
    pub adapters: Option<AdapterTotals>,
    /// Engine steps computed.
    pub steps: u64,
    /// Events that the simulator handled; a leap over many steps is one.
    pub events: u64,
}

/// What is known of a measured run as a whole at its end, beside the records.
#[derive(Clone, Debug, PartialEq)]
pub struct MeasuredTotals {
    /// Requests that the plan offered; those that were not sent are among them.
    pub offered: u64,
    /// When the last thing happened (ns).
    pub end_ns: u64,
    /// The deployment, if anything is known of it.
    pub deployment: Option<DeploymentTotals>,
    /// How it was measured, and how far that is to be trusted.
    pub measured: Measured,
}

/// What a measured deployment held and cost, as far as is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeploymentTotals {
    /// Time integral of the replicas that hold GPUs [replica ns].
    pub replica_ns: u128,
    /// Most replicas that held GPUs at once.
    pub replicas_max: u32,
    /// Replicas that came during the run.
    pub starts: u64,
    /// Times the number of replicas turned from rising to falling or back.
    pub direction_changes: u64,
    /// What is paid for, by the billing rule [GPU ns].
    pub billed_gpu_ns: u128,
    /// Ready replicas [GPU ns].
    pub ready_gpu_ns: u128,
    /// Starting replicas [GPU ns].
    pub starting_gpu_ns: u128,
    /// Draining replicas [GPU ns].
    pub draining_gpu_ns: u128,
    /// Ready, with a step in flight [GPU ns]; `None` unless the server tells.
    pub busy_gpu_ns: Option<u128>,
    /// What the run costs [1e-9 USD].
    pub cost_nanodollars: u128,
}

/// What the adapters of all replicas did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AdapterTotals {
    /// Adapters loaded into a replica's GPU memory.
    pub loads: u64,
    /// Loads for which another adapter gave its slot up.
    pub evictions: u64,
}

/// GPU-time [GPU ns]; `starting + idle + busy + draining` is all that was held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GpuTime {
    /// What is paid for, by the billing rule.
    pub billed: u128,
    /// Ready, with a step in flight.
    pub busy: u128,
    /// Ready, with nothing to do.
    pub idle: u128,
    /// Asked for and not ready yet.
    pub starting: u128,
    /// From the order to drain until gone.
    pub draining: u128,
}

impl RequestRecord {
    /// When its last token came: of a measured request the last chunk that carried output, of a
    /// simulated one its end.
    #[must_use]
    #[inline]
    pub fn last_token_ns(&self) -> u64 {
        let measured = self.wire.and_then(|wire| wire.last_output_ns);
        measured.unwrap_or(self.end_ns)
    }
}

impl Outcome {
    /// Every outcome, in the order in which they are counted.
    pub const ALL: [Outcome; 24] = [
        Outcome::Completed,
        Outcome::RejectedTooLong,
        Outcome::RejectedNeverFits,
        Outcome::RejectedScalingUp,
        Outcome::RejectedQueueFull,
        Outcome::RejectedDeleted,
        Outcome::RejectedPaused,
        Outcome::RejectedParked,
        Outcome::FailedDrain,
        Outcome::FailedCrash,
        Outcome::FailedTimeout,
        Outcome::FailedUnserved,
        Outcome::RejectedRateLimited,
        Outcome::RejectedUnavailable,
        Outcome::RejectedStatus,
        Outcome::FailedStatus,
        Outcome::FailedConnect,
        Outcome::FailedReset,
        Outcome::FailedTruncated,
        Outcome::FailedStalled,
        Outcome::FailedGarbage,
        Outcome::FailedError,
        Outcome::FailedCancelled,
        Outcome::Unsent,
    ];

    /// Whether it was refused, rather than broken off, unsent or completed.
    #[must_use]
    pub fn is_rejected(self) -> bool {
        self.name().starts_with("rejected_")
    }

    /// The outcome of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.name() == name)
    }

    /// The name in `requests.csv`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Outcome::Completed => "completed",
            Outcome::RejectedTooLong => "rejected_too_long",
            Outcome::RejectedNeverFits => "rejected_never_fits",
            Outcome::RejectedScalingUp => "rejected_scaling_up",
            Outcome::RejectedQueueFull => "rejected_queue_full",
            Outcome::RejectedDeleted => "rejected_deleted",
            Outcome::RejectedPaused => "rejected_paused",
            Outcome::RejectedParked => "rejected_parked",
            Outcome::FailedDrain => "failed_drain",
            Outcome::FailedCrash => "failed_crash",
            Outcome::FailedTimeout => "failed_timeout",
            Outcome::FailedUnserved => "failed_unserved",
            Outcome::RejectedRateLimited => "rejected_rate_limited",
            Outcome::RejectedUnavailable => "rejected_unavailable",
            Outcome::RejectedStatus => "rejected_status",
            Outcome::FailedStatus => "failed_status",
            Outcome::FailedConnect => "failed_connect",
            Outcome::FailedReset => "failed_reset",
            Outcome::FailedTruncated => "failed_truncated",
            Outcome::FailedStalled => "failed_stalled",
            Outcome::FailedGarbage => "failed_garbage",
            Outcome::FailedError => "failed_error",
            Outcome::FailedCancelled => "failed_cancelled",
            Outcome::Unsent => "unsent",
        }
    }
}

impl TokensFrom {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Usage, Self::Chunks, Self::Asked];

    /// The name in `requests.csv`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            TokensFrom::Usage => "usage",
            TokensFrom::Chunks => "chunks",
            TokensFrom::Asked => "asked",
        }
    }
}

impl ChangeKind {
    /// Every kind.
    pub const ALL: [Self; 11] = [
        Self::Target,
        Self::Pending,
        Self::Downloading,
        Self::Initialising,
        Self::Ready,
        Self::Draining,
        Self::Cancelled,
        Self::StartFailed,
        Self::Crashed,
        Self::Deployment,
        Self::Gone,
    ];

    /// The name in `timeline.csv`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            ChangeKind::Target => "target",
            ChangeKind::Pending => "pending",
            ChangeKind::Downloading => "downloading",
            ChangeKind::Initialising => "initialising",
            ChangeKind::Ready => "ready",
            ChangeKind::Draining => "draining",
            ChangeKind::Cancelled => "cancelled",
            ChangeKind::StartFailed => "start_failed",
            ChangeKind::Crashed => "crashed",
            ChangeKind::Deployment => "deployment",
            ChangeKind::Gone => "gone",
        }
    }
}

/// Takes the records and keeps none.
impl RecordSink for () {
    fn request(&mut self, _: &RequestRecord) {}
    fn gaps(&mut self, _: Gaps) {}
    fn change(&mut self, _: &Change) {}
}

/// Hands the records on to a sink that someone else owns.
impl<S: RecordSink + ?Sized> RecordSink for &mut S {
    fn request(&mut self, record: &RequestRecord) {
        (**self).request(record);
    }
    fn gaps(&mut self, gaps: Gaps) {
        (**self).gaps(gaps);
    }
    fn change(&mut self, change: &Change) {
        (**self).change(change);
    }
}

/// Hands the records on, if there is a sink.
impl<S: RecordSink> RecordSink for Option<S> {
    fn request(&mut self, record: &RequestRecord) {
        if let Some(sink) = self {
            sink.request(record);
        }
    }
    fn gaps(&mut self, gaps: Gaps) {
        if let Some(sink) = self {
            sink.gaps(gaps);
        }
    }
    fn change(&mut self, change: &Change) {
        if let Some(sink) = self {
            sink.change(change);
        }
    }
}

/// Hands the records on to both, without dynamic dispatch.
impl<A: RecordSink, B: RecordSink> RecordSink for (A, B) {
    fn request(&mut self, record: &RequestRecord) {
        self.0.request(record);
        self.1.request(record);
    }
    fn gaps(&mut self, gaps: Gaps) {
        self.0.gaps(gaps);
        self.1.gaps(gaps);
    }
    fn change(&mut self, change: &Change) {
        self.0.change(change);
        self.1.change(change);
    }
}
