//! The records of a run: what a simulation and a measurement have in common.
//!
//! Whoever runs a deployment hands these to a [`RecordSink`], one by one, as
//! they happen. Sinks compose: `(a, b)` hands each record to both, and an
//! `Option` of a sink may be absent.

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
    /// Where its time went; the parts sum to `end_ns - due_ns` exactly.
    pub parts: Parts,
}

/// Where the time of a request went, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// Earlier attempts, and waiting to try again.
    pub retry_ns: u64,
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

impl Outcome {
    /// Every outcome, in the order in which they are counted.
    pub const ALL: [Outcome; 12] = [
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
    ];

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
        }
    }
}

impl ChangeKind {
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
