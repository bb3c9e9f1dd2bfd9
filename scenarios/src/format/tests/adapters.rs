//! Adapters: what is deployed, and who asks for which.

use foresail_core::batching::AdapterSource;
use foresail_core::time::MILLISECOND;

use super::{BASE, broken, ok, render, set, try_set};
use crate::scenario::Adapters;

fn with(tables: &str) -> String {
    format!("{BASE}{tables}")
}

fn adapters(tables: &str) -> Adapters {
    ok(&with(tables)).deployment.adapters.unwrap()
}

fn wrong(tables: &str) -> String {
    render(&try_set(&with(tables), &[]).expect_err(tables))
}

#[test]
fn a_deployment_has_no_adapters_unless_it_says_so() {
    let scenario = ok(BASE);
    assert_eq!(scenario.deployment.adapters, None);
    assert_eq!(scenario.workload.adapters.deployed, Some(Vec::new()));
    assert_eq!(scenario.workload.adapters.mix, None);
}

#[test]
fn alike_adapters_are_numbered_and_sized_by_rank() {
    let adapters = adapters("[adapters]\ncount = 3\n");
    let names: Vec<&str> = adapters.deployed.iter().map(|a| a.name.as_str()).collect();
    assert_eq!(names, ["adapter-0", "adapter-1", "adapter-2"]);
    // Rank 16 on all linear layers of an 8B: 42 million parameters in bf16.
    assert_eq!(adapters.deployed[0].bytes, 83_886_080);
    assert_eq!((adapters.slots, adapters.host_slots), (8, 8));
    let [storage, host] =
        [AdapterSource::Storage, AdapterSource::Host].map(|source| adapters.load_time(2, source));
    assert_eq!(storage / MILLISECOND, 31);
    assert_eq!(host / MILLISECOND, 3);
}

#[test]
fn listed_adapters_have_their_own_size() {
    let list = "[[adapters.list]]\nname = \"sql\"\nbase = \"meta-llama/Meta-Llama-3-8B\"\nrank = 8\n\
                [[adapters.list]]\nname = \"legal\"\nsize_mib = 100\n";
    let adapters = adapters(list);
    let sizes: Vec<_> = adapters
        .deployed
        .iter()
        .map(|a| (a.rank, a.bytes))
        .collect();
    assert_eq!(sizes, [(8, 41_943_040), (16, 104_857_600)]);
}

#[test]
fn a_batch_uses_no_more_adapters_than_a_replica_holds() {
    let max_loras = |tables: &str, arguments: &[&str]| {
        set(&with(tables), arguments).deployment.batching.max_loras
    };
    assert_eq!(max_loras("", &[]), 8);
    assert_eq!(max_loras("[adapters]\ncount = 9\nslots = 4\n", &[]), 4);
    assert_eq!(max_loras("[adapters]\ncount = 9\nslots = 20\n", &[]), 8);
    let adapters = set(&with("[adapters]\ncount = 9\n"), &["batching.max_loras=3"]);
    assert_eq!(adapters.deployment.adapters.unwrap().slots, 3);
    let error = wrong("[adapters]\ncount = 9\nslots = 4\n[batching]\nmax_loras = 6\n");
    assert!(
        error.contains("slots (4) is less than max_loras (6)"),
        "{error}"
    );
    let error = wrong("[adapters]\ncount = 9\nhost_slots = 4\n");
    assert!(
        error.contains("host_slots (4) is less than slots (8)"),
        "{error}"
    );
}

#[test]
fn slots_are_taken_from_the_kv_cache() {
    let blocks = |tables: &str| ok(&with(tables)).deployment.batching.num_blocks;
    let (none, few) = (blocks(""), blocks("[adapters]\ncount = 9\n"));
    let many = blocks("[adapters]\ncount = 9\nslots = 80\n");
    assert!(many < few && few < none, "{many} < {few} < {none}");
    let large = with("[adapters]\ncount = 9\nsize_mib = 9000\n");
    let error = render(&try_set(&large, &["deployment.world_size=1"]).unwrap_err());
    assert!(error.contains("adapters 70.3 GiB"), "{error}");
    assert!(error.contains("fewer `adapters.slots`"), "{error}");
}

/// S35: the deployment's base model must be the adapter's.
#[test]
fn an_adapter_of_another_model() {
    let error = wrong("[[adapters.list]]\nname = \"sql\"\nbase = \"llama-3.1-70b\"\n");
    insta::assert_snapshot!(error, @r#"
    scenario::adapter_base

      × an adapter of llama-3.1-70b cannot be deployed on llama-3-8b
       ╭─[s.toml:2:9]
     1 │ [deployment]
     2 │ model = "llama-3-8b"
       ·         ──────┬─────
       ·               ╰── the deployment's model is llama-3-8b
     3 │ gpu = "h100"
       ╰────
        ╭─[s.toml:12:8]
     11 │ name = "sql"
     12 │ base = "llama-3.1-70b"
        ·        ───────┬───────
        ·               ╰── its base model is llama-3.1-70b
        ╰────
      help: the deployment's model must be the adapter's base model: change one of them
    "#);
}

#[test]
fn adapters_are_given_in_one_way() {
    let error = wrong("[adapters]\ncount = 2\nlist = [{ name = \"sql\" }]\n");
    assert!(error.contains("adapters are given in one way"), "{error}");
    let error = wrong("[adapters]\nrank = 8\nlist = [{ name = \"sql\" }]\n");
    assert!(
        error.contains("`adapters.rank` has no effect with a `list`"),
        "{error}"
    );
    let error = wrong("[adapters]\nslots = 8\n");
    assert!(error.contains("`[adapters]` has no `count`"), "{error}");
    let error = wrong("[adapters]\nlist = []\n");
    assert!(error.contains("must be a list of adapters"), "{error}");
    let twice = wrong("[adapters]\nlist = [{ name = \"sql\" }, { name = \"sql\" }]\n");
    assert!(twice.contains("there are two adapters `sql`"), "{twice}");
    let comma = wrong("[adapters]\nlist = [{ name = \"a,b\" }]\n");
    assert!(
        comma.contains("must be a name that fits a CSV file"),
        "{comma}"
    );
}

#[test]
fn requests_choose_among_what_is_deployed() {
    let deployed = "[adapters]\nlist = [{ name = \"sql\" }, { name = \"legal\" }]\n";
    let mix = |table: &str| {
        let scenario = ok(&with(&format!("{deployed}[workload.adapters]\n{table}")));
        scenario.workload.adapters.mix.unwrap()
    };
    assert_eq!(mix("").weights, [(0, 1.0), (1, 1.0)]);
    assert_eq!(mix("zipf = 1").weights, [(0, 1.0), (1, 0.5)]);
    let shares = mix("shares = [[\"legal\", 3], [\"sql\", 0.5]]\nbase_share = 0.25");
    assert_eq!(
        (shares.weights, shares.base_share),
        (vec![(1, 3.0), (0, 0.5)], 0.25)
    );
    let error = |table: &str| wrong(&format!("{deployed}[workload.adapters]\n{table}"));
    let unknown = error("shares = [[\"sq\", 3]]");
    assert!(
        unknown.contains("names an adapter that is not deployed"),
        "{unknown}"
    );
    assert!(unknown.contains("did you mean `sql`?"), "{unknown}");
    assert!(error("zipf = 1\nshares = [[\"sql\", 3]]").contains("adapters are chosen in one way"));
    assert!(error("shares = [[\"sql\", 0]]").contains("needs a weight above 0"));
    assert!(error("shares = [\"sql\"]").contains("must be a list of [name, weight]"));
    assert!(error("base_share = 1.5").contains("must be 0 to 1"));
    let error = broken("output_tokens = 128", "adapters = { zipf = 1 }");
    assert!(error.contains("no adapter is deployed"), "{error}");
}

/// One mistake is one problem: what depends on it is not called wrong too.
#[test]
fn a_mistake_in_the_adapters_is_told_once() {
    let tables =
        "[adapters]\nlist = [{ nam = \"sql\" }]\n[workload.adapters]\nshares = [[\"sql\", 1]]\n";
    let error = wrong(tables);
    assert!(
        !error.contains("not deployed") && !error.contains("no adapter is"),
        "{error}"
    );
}
