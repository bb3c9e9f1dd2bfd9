//! Arguments that contradict each other, and which to leave out.

use super::value::Rate;
use super::{Arguments, ArrivalPattern, DatasetName};
use crate::failure::Failure;

impl Arguments {
    /// Refuses what contradicts itself.
    ///
    /// # Errors
    /// [`Failure::Input`] for the first contradiction, with what to leave out.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        match self.contradiction() {
            Some(text) => Err(Failure::Input(text)),
            None => Ok(()),
        }
    }

    fn contradiction(&self) -> Option<String> {
        let found = [
            self.of_a_scenario(),
            self.of_a_trace(),
            self.of_nothing(),
            self.of_loops(),
            self.of_rates(),
            self.of_prompts(),
            self.of_output(),
        ];
        found.into_iter().flatten().next()
    }

    /// Options that make traffic, as they are given.
    fn makes_traffic(&self) -> Vec<&'static str> {
        let (traffic, prompts) = (&self.traffic, &self.prompts);
        let options = [
            ("--request-rate", traffic.request_rate.is_some()),
            ("--burstiness", traffic.burstiness.is_some()),
            ("--arrival-pattern", traffic.arrival_pattern.is_some()),
            ("--ramp-up-strategy", traffic.ramp_up_strategy.is_some()),
            ("--dataset-name", prompts.dataset_name.is_some()),
            ("--dataset-path", prompts.dataset_path.is_some()),
            ("--random-input-len", prompts.random_input_len.is_some()),
            ("--random-output-len", prompts.random_output_len.is_some()),
            ("--random-range-ratio", prompts.random_range_ratio.is_some()),
            ("--random-prefix-len", prompts.random_prefix_len.is_some()),
        ];
        let given = options.into_iter().filter(|(_, is_given)| *is_given);
        given.map(|(name, _)| name).collect()
    }

    /// A scenario has its traffic.
    fn of_a_scenario(&self) -> Option<String> {
        self.scenario.as_ref()?;
        let given = self.makes_traffic();
        if !given.is_empty() {
            return Some(format!(
                "{}: the traffic is the scenario's; change it with --set, such as \
                 --set workload.arrivals.rate_per_s=5, or leave the scenario out",
                given.join(", ")
            ));
        }
        let servers = &self.servers;
        let is_priced = servers.usd_per_gpu_hour.is_some() || servers.world_size.is_some();
        is_priced.then(|| {
            "--world-size and --usd-per-gpu-hour: the scenario says them; change them with --set, \
             such as --set price.usd_per_gpu_hour=4, or leave the scenario out"
                .to_owned()
        })
    }

    /// So has a trace.
    fn of_a_trace(&self) -> Option<String> {
        let given = self.makes_traffic();
        let has_trace = self.changes.trace().is_some();
        (has_trace && !given.is_empty()).then(|| {
            format!(
                "{}: the traffic is that of --trace; leave one of them out",
                given.join(", ")
            )
        })
    }

    /// What changes a scenario needs one, and traffic has to come from somewhere.
    fn of_nothing(&self) -> Option<String> {
        if self.scenario.is_some() {
            return None;
        }
        if !self.changes.set().is_empty() {
            let text = "--set changes a scenario, and there is none; name one, or leave --set out";
            return Some(text.to_owned());
        }
        let traffic = &self.traffic;
        let is_said = traffic.request_rate.is_some()
            || traffic.ramp_up_strategy.is_some()
            || traffic.concurrency.is_some()
            || self.rates.are_several()
            || self.changes.trace().is_some();
        (!is_said).then(|| {
            "what is to be sent? Name a scenario, such as chat, a --trace, a --request-rate, such \
             as 5, or a --concurrency, such as 8"
                .to_owned()
        })
    }

    /// A closed loop has no rate.
    fn of_loops(&self) -> Option<String> {
        let traffic = &self.traffic;
        traffic.concurrency?;
        let open = [
            (
                "--request-rate",
                matches!(traffic.request_rate, Some(Rate::PerSecond(_))),
            ),
            ("--burstiness", traffic.burstiness.is_some()),
            ("--arrival-pattern", traffic.arrival_pattern.is_some()),
            ("--ramp-up-strategy", traffic.ramp_up_strategy.is_some()),
            ("--max-concurrency", traffic.max_concurrency.is_some()),
            ("--rate", self.rates.rate.is_some()),
            ("--ramp-until", !self.rates.ramp_until.is_empty()),
        ];
        let name = open.into_iter().find(|(_, is_given)| *is_given)?.0;
        Some(format!(
            "--concurrency and {name}: users of a closed loop ask when they have their answer, so \
             there is no rate; leave one of them out"
        ))
    }

    /// The rate is said once.
    fn of_rates(&self) -> Option<String> {
        let traffic = &self.traffic;
        let said = [
            ("--request-rate", traffic.request_rate.is_some()),
            ("--ramp-up-strategy", traffic.ramp_up_strategy.is_some()),
            ("--rate", self.rates.rate.is_some()),
            ("--ramp-until", !self.rates.ramp_until.is_empty()),
        ];
        let said: Vec<_> = said.into_iter().filter(|(_, is_said)| *is_said).collect();
        if let [(first, _), (second, _), ..] = said[..] {
            return Some(format!(
                "{first} and {second}: both say the rate; leave one of them out"
            ));
        }
        if self.rates.runs.is_some() && !self.rates.are_several() {
            let text = "--runs is for each rate of --rate or --ramp-until; add one of them, or leave it out";
            return Some(text.to_owned());
        }
        if self.rates.are_several() && self.run.shard.is_some() {
            let text = "--shard is for one run; leave --rate and --ramp-until out, or --shard";
            return Some(text.to_owned());
        }
        let is_gamma = matches!(traffic.arrival_pattern, None | Some(ArrivalPattern::Gamma));
        if traffic.burstiness.is_some() && !is_gamma {
            let text = "--burstiness is of gamma arrivals; leave it out, or --arrival-pattern";
            return Some(text.to_owned());
        }
        (traffic.arrival_pattern == Some(ArrivalPattern::Gamma) && traffic.burstiness.is_none())
            .then(|| "--arrival-pattern gamma needs its --burstiness, such as 0.5".to_owned())
    }

    /// Prompts are made up, or read.
    fn of_prompts(&self) -> Option<String> {
        let prompts = &self.prompts;
        let is_read = matches!(
            prompts.dataset_name,
            Some(DatasetName::Sharegpt | DatasetName::Custom)
        );
        match (is_read, &prompts.dataset_path) {
            (true, None) => {
                return Some("--dataset-name needs its file: add --dataset-path".to_owned());
            }
            (false, Some(_)) => {
                let text = "--dataset-path needs --dataset-name: sharegpt or custom";
                return Some(text.to_owned());
            }
            _ => {}
        }
        let made_up = [
            ("--random-input-len", prompts.random_input_len.is_some()),
            ("--random-range-ratio", prompts.random_range_ratio.is_some()),
            ("--random-prefix-len", prompts.random_prefix_len.is_some()),
        ];
        let name = made_up.into_iter().find(|(_, is_given)| *is_given)?.0;
        is_read
            .then(|| format!("{name}: prompts are those of --dataset-path; leave one of them out"))
    }

    /// Forms of other tools need a folder.
    fn of_output(&self) -> Option<String> {
        let output = &self.output;
        if self.rates.are_several() && (output.save_result || !output.export.is_empty()) {
            let text = "--save-result and --export are of one run; leave --rate and --ramp-until out, or them";
            return Some(text.to_owned());
        }
        (!output.export.is_empty() && output.out.is_none())
            .then(|| "--export writes into the folder of --out; add --out DIR".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn contradiction(arguments: &str) -> String {
        let words = ["load", "--url", "http://127.0.0.1:1"];
        let words = words.into_iter().chain(arguments.split_whitespace());
        let command = Command::try_parse_from(words);
        match command {
            Ok(command) => command.arguments.contradiction().unwrap_or_default(),
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn what_contradicts_itself_says_what_to_leave_out() {
        let wrong = [
            "chat --request-rate 5 --isl 64",
            "chat --usd-per-gpu-hour 4",
            "--trace a.csv --osl 5",
            "--request-rate 5 --set seed=3",
            "--num-prompts 100",
            "--concurrency 4 --request-rate 5",
            "chat --concurrency 4 --rate 1,2",
            "--request-rate 5 --rate 1,2",
            "--request-rate 5 --runs 3",
            "chat --rate 1,2 --shard 1/2",
            "--request-rate 5 --arrival-pattern constant --burstiness 2",
            "--request-rate 5 --arrival-pattern gamma",
            "--request-rate 5 --dataset-name sharegpt",
            "--request-rate 5 --dataset-path a.json",
            "--request-rate 5 --dataset-name custom --dataset-path a --isl 5",
            "chat --export vllm",
        ];
        let texts: Vec<String> = wrong.into_iter().map(contradiction).collect();
        insta::assert_snapshot!(texts.join("\n"), @r"
        --request-rate, --random-input-len: the traffic is the scenario's; change it with --set, such as --set workload.arrivals.rate_per_s=5, or leave the scenario out
        --world-size and --usd-per-gpu-hour: the scenario says them; change them with --set, such as --set price.usd_per_gpu_hour=4, or leave the scenario out
        --random-output-len: the traffic is that of --trace; leave one of them out
        --set changes a scenario, and there is none; name one, or leave --set out
        what is to be sent? Name a scenario, such as chat, a --trace, a --request-rate, such as 5, or a --concurrency, such as 8
        --concurrency and --request-rate: users of a closed loop ask when they have their answer, so there is no rate; leave one of them out
        --concurrency and --rate: users of a closed loop ask when they have their answer, so there is no rate; leave one of them out
        --request-rate and --rate: both say the rate; leave one of them out
        --runs is for each rate of --rate or --ramp-until; add one of them, or leave it out
        --shard is for one run; leave --rate and --ramp-until out, or --shard
        --burstiness is of gamma arrivals; leave it out, or --arrival-pattern
        --arrival-pattern gamma needs its --burstiness, such as 0.5
        --dataset-name needs its file: add --dataset-path
        --dataset-path needs --dataset-name: sharegpt or custom
        --random-input-len: prompts are those of --dataset-path; leave one of them out
        --export writes into the folder of --out; add --out DIR
        ");
    }

    #[test]
    fn what_is_sound_is_let_through() {
        let right = [
            "chat",
            "chat --set workload.duration=10s --seed 3 --concurrency 4",
            "--trace a.csv --duration 10s",
            "--request-rate inf --concurrency 8",
            "--request-rate 5 --burstiness 0.5 --isl 512 --osl 64 --ignore-eos",
            "--rate 1,2,4 --runs 3 --num-prompts 10",
            "--request-rate inf --max-concurrency 4",
            "--request-rate 5 --dataset-name sharegpt --dataset-path a.json --osl 5",
            "--ramp-up-strategy linear --ramp-up-start-rps 1 --ramp-up-end-rps 5",
            "chat --goodput ttft:500 tpot:50 --out runs --export vllm,hdr",
        ];
        for arguments in right {
            assert_eq!(contradiction(arguments), "", "{arguments}");
        }
    }
}
