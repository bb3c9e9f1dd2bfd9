//! The voice of the tool, reviewed as text.

mod fixture;

use fixture::{MILLISECOND, SECOND, request, summary, summary_of, totals};
use foresail_reports::records::{Outcome, Parts, ReplicaCounts, RunTotals};
use foresail_reports::seeds::Seeds;
use foresail_reports::{Style, text};

#[test]
fn a_run() {
    let text = text::summary(&summary("burst", 42).with_wall_s(0.0123), Style::default());
    insta::assert_snapshot!(text, @"");
}
#[test]
fn several() {
    let mut s = summary("burst", 42);
    let mut b = summary("burst-large", 43);
    b.cost.usd = 2.5;
    b.ttft_s = s.e2e_s;
    s.seeds = Some(Seeds::of(&[s.clone(), b.clone()]));
    insta::assert_snapshot!(text::summary(&s, Style::default()), @"");
}
#[test]
fn side() {
    let mut a = summary("burst", 42);
    a.objectives.iter_mut().for_each(|o| o.met = true);
    let mut b = summary("burst-large", 43);
    b.cost.usd = 2.5;
    insta::assert_snapshot!(text::comparison(&[a,b], Style::default()), @"");
}
#[test]
fn none() {
    insta::assert_snapshot!(text::summary(&summary_of(&[], &RunTotals::default()), Style::default()), @"");
}
#[test]
fn one() {
    let r = request(0, 0, Parts{ prefill_ns: 50*MILLISECOND, ..Parts::default()}, 1);
    insta::assert_snapshot!(text::summary(&summary_of(&[r], &RunTotals{offered:1,end_ns:50*MILLISECOND, ..RunTotals::default()}), Style::default()), @"");
}
#[test]
fn rejected() {
    let mut r = request(0, 0, Parts{ ..Parts::default()}, 1);
    r.outcome=Outcome::RejectedScalingUp;
    r.first_token_ns=None;
    let _ = (totals(1), SECOND, ReplicaCounts::default());
    insta::assert_snapshot!(text::summary(&summary_of(&[r], &RunTotals{offered:1,end_ns:50*SECOND, ..RunTotals::default()}), Style::default()), @"");
}
