//! The figures of a summary as a table of rows `metric, statistic, unit, value`: what spreadsheets and data frames like.

use crate::summary::{LatencySummary, Summary};

/// The table as CSV, with a header. What is not known has no row.
#[must_use]
pub fn to_csv(summary: &Summary) -> String {
    let mut rows = Rows::default();
    rows.counts(summary);
    let latencies = [
        ("ttft", summary.ttft_s),
        ("itl", summary.itl_s),
        ("tpot", summary.tpot_s),
        ("e2e", summary.e2e_s),
        ("queue", summary.queue_s),
    ];
    for (metric, latency) in latencies {
        rows.latency(metric, latency);
    }
    rows.rates(summary);
    rows.deployment(summary);
    rows.text
}

struct Rows {
    text: String,
}

impl Default for Rows {
    fn default() -> Self {
        let text = "metric,statistic,unit,value\n".to_owned();
        Self { text }
    }
}

impl Rows {
    /// Names and units are ours and need no quotation marks.
    fn row(&mut self, metric: &str, statistic: &str, unit: &str, value: impl Into<Option<f64>>) {
        if let Some(value) = value.into() {
            self.text += &format!("{metric},{statistic},{unit},{value}\n");
        }
    }

    fn counts(&mut self, summary: &Summary) {
        let requests = &summary.requests;
        let counts = [
            ("offered", requests.offered),
            ("completed", requests.completed),
            ("failed", requests.failed),
            ("rejected", requests.rejected),
            ("retried", requests.retried),
        ];
        for (statistic, count) in counts {
            self.row("requests", statistic, "requests", count as f64);
        }
        let tokens = &summary.tokens;
        let counts = [
            ("prompt", tokens.prompt),
            ("cached", tokens.cached),
            ("output", tokens.output),
        ];
        for (statistic, count) in counts {
            self.row("tokens", statistic, "tokens", count as f64);
        }
        self.row("duration", "total", "s", summary.duration_s);
    }

    fn latency(&mut self, metric: &str, latency: Option<LatencySummary>) {
        let Some(LatencySummary {
            mean,
            p50,
            p90,
            p95,
            p99,
            max,
        }) = latency
        else {
            return;
        };
        let statistics = [
            ("mean", mean),
            ("p50", p50),
            ("p90", p90),
            ("p95", p95),
            ("p99", p99),
            ("max", max),
        ];
        for (statistic, value) in statistics {
            self.row(metric, statistic, "s", value);
        }
    }

    fn rates(&mut self, summary: &Summary) {
        let throughput = &summary.throughput;
        self.row(
            "requests",
            "per_second",
            "requests/s",
            throughput.requests_per_s,
        );
        self.row(
            "output_tokens",
            "per_second",
            "tokens/s",
            throughput.output_tokens_per_s,
        );
        self.row("goodput", "per_second", "requests/s", summary.goodput_per_s);
    }

    fn deployment(&mut self, summary: &Summary) {
        if let Some(replicas) = &summary.replicas {
            self.row("replicas", "mean", "replicas", replicas.mean);
            self.row("replicas", "max", "replicas", f64::from(replicas.max));
        }
        if let Some(gpu_seconds) = &summary.gpu_seconds {
            self.row("gpu_time", "billed", "GPU s", gpu_seconds.billed);
            self.row("gpu_time", "busy", "GPU s", gpu_seconds.busy);
        }
        if let Some(cost) = &summary.cost {
            self.row("cost", "total", "USD", cost.usd);
            let per_million = cost.usd_per_million_output_tokens;
            self.row("cost", "per_million_output_tokens", "USD", per_million);
            self.row("cost", "per_request", "USD", cost.usd_per_request);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::run;
    use super::*;

    #[test]
    fn figures_are_rows_and_what_is_not_known_is_none() {
        insta::assert_snapshot!(to_csv(&run().summary), @"
        metric,statistic,unit,value
        requests,offered,requests,4
        requests,completed,requests,3
        requests,failed,requests,1
        requests,rejected,requests,0
        requests,retried,requests,0
        tokens,prompt,tokens,300
        tokens,cached,tokens,0
        tokens,output,tokens,9
        duration,total,s,2.5
        ttft,mean,s,0.07
        ttft,p50,s,0.070057983
        ttft,p90,s,0.08
        ttft,p95,s,0.08
        ttft,p99,s,0.08
        ttft,max,s,0.08
        itl,mean,s,0.01
        itl,p50,s,0.01
        itl,p90,s,0.01
        itl,p95,s,0.01
        itl,p99,s,0.01
        itl,max,s,0.01
        tpot,mean,s,0.01
        tpot,p50,s,0.01
        tpot,p90,s,0.01
        tpot,p95,s,0.01
        tpot,p99,s,0.01
        tpot,max,s,0.01
        e2e,mean,s,0.091
        e2e,p50,s,0.091029503
        e2e,p90,s,0.101
        e2e,p95,s,0.101
        e2e,p99,s,0.101
        e2e,max,s,0.101
        requests,per_second,requests/s,2.7247956403269757
        output_tokens,per_second,tokens/s,8.174386920980927
        goodput,per_second,requests/s,0.9082652134423251
        replicas,mean,replicas,1
        replicas,max,replicas,1
        gpu_time,billed,GPU s,5
        cost,total,USD,0.005
        cost,per_million_output_tokens,USD,555.5555555555555
        cost,per_request,USD,0.0016666666666666668
        ");
    }
}
