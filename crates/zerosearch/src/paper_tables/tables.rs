//! The tables: their rows, what the paper has in them, and its claims.
//!
//! Figures of the paper are averages of EM in % over its seven data sets (arXiv:2505.04588v3), those of Table 8 US dollars.

use super::experiment::ZEROSEARCH;

/// A table of the paper, or one beside it.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// Its number in the paper, or its name.
    pub name: &'static str,
    /// Its heading.
    pub title: &'static str,
    /// The question that it answers, and differences from the paper's.
    pub about: &'static str,
    /// The heading of the column with the paper's figures.
    pub paper: &'static str,
    /// Its rows; those that run first stand first.
    pub rows: &'static [Row],
    /// The orders that it is about.
    pub claims: &'static [Claim],
}

/// A row of a table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The method or variant.
    pub label: &'static str,
    /// The name of the experiment that its figures come from.
    pub experiment: &'static str,
    /// The paper's figure; empty where it has none.
    pub paper: &'static str,
}

/// The claim that one experiment ends above another.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// Its name, by which a remark refers to it.
    pub name: &'static str,
    /// The claim.
    pub text: &'static str,
    /// The experiment with the higher EM.
    pub better: &'static str,
    /// The experiment with the lower EM.
    pub worse: &'static str,
    /// The paper's figures for it; empty where the claim is not the paper's.
    pub paper: &'static str,
}

impl Table {
    /// The table of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        TABLES.iter().find(|table| table.name == name)
    }

    /// Its experiments, in the order of its rows.
    pub fn experiments(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.rows.iter().map(|row| row.experiment)
    }

    /// Its cells in the order in which they run: those with a figure in the paper before the others, and of either all rows
    /// with one seed before the next seed, so that whatever is there can be compared.
    pub fn cells(&self, seeds: u64) -> Vec<(&'static str, u64)> {
        let experiments = |in_the_paper: bool| {
            self.rows.iter().filter(move |row| row.paper.is_empty() != in_the_paper).map(|row| row.experiment)
        };
        let cells = [true, false].map(|in_the_paper| {
            (0..seeds).flat_map(move |seed| experiments(in_the_paper).map(move |name| (name, seed)))
        });
        cells.into_iter().flatten().collect()
    }
}

const fn row(label: &'static str, experiment: &'static str, paper: &'static str) -> Row {
    Row { label, experiment, paper }
}

const fn claim(
    name: &'static str,
    text: &'static str,
    better: &'static str,
    worse: &'static str,
    paper: &'static str,
) -> Claim {
    Claim { name, text, better, worse, paper }
}

/// Every table, in the order in which they run.
pub static TABLES: [Table; 7] = [ALGORITHMS, CURRICULUM, SIMULATORS, DEFECTS, METHODS, PLAIN, COST];

const ALGORITHMS: Table = Table {
    name: "5",
    title: "Table 5: algorithms",
    about: "Each algorithm with its default parameters, the fine-tuned simulator and the rising curriculum.",
    paper: "Table 5, Qwen-2.5-3B-Base",
    rows: &[
        row("REINFORCE", "reinforce", "34.47"),
        row("GRPO", ZEROSEARCH, "33.17"),
        row("PPO", "ppo", "32.67"),
        row("RLOO", "rloo", ""),
        row("REINFORCE++", "reinforce_pp", ""),
        row("DAPO", "dapo", ""),
        row("GSPO", "gspo", ""),
        row("CISPO", "cispo", ""),
        row("no training", "base", "8.82 (Table 4)"),
    ],
    claims: &[
        claim("reinforce_grpo", "REINFORCE ends above GRPO", "reinforce", ZEROSEARCH, "34.47 > 33.17"),
        claim("grpo_ppo", "GRPO ends above PPO", ZEROSEARCH, "ppo", "33.17 > 32.67"),
        claim("reinforce_base", "REINFORCE ends above the base policy", "reinforce", "base", "34.47 > 8.82"),
        claim("grpo_base", "GRPO ends above the base policy", ZEROSEARCH, "base", "33.17 > 8.82"),
        claim("ppo_base", "PPO ends above the base policy", "ppo", "base", "32.67 > 8.82"),
    ],
};

const CURRICULUM: Table = Table {
    name: "6",
    title: "Table 6: curriculum",
    about: "GRPO and the fine-tuned simulator. The paper's *random* is a constant probability of 0.5; here it is the rising curriculum's \
            mean, so that the order of the noise is all that differs.",
    paper: "Table 6, Qwen-2.5-3B-Base",
    rows: &[
        row("rising", ZEROSEARCH, "34.47"),
        row("random: constant, with the mean of the rising one", "random", "32.59"),
        row("reversed: falling", "reversed", ""),
        row("adaptive: by the mean reward, between the same bounds", "adaptive", ""),
    ],
    claims: &[
        claim(
            "curriculum_random",
            "the rising curriculum ends above the random one",
            ZEROSEARCH,
            "random",
            "34.47 > 32.59; LLaMA-3.2-3B 36.07 > 34.84",
        ),
        claim("curriculum_reversed", "the rising curriculum ends above the falling one", ZEROSEARCH, "reversed", ""),
    ],
};

const SIMULATORS: Table = Table {
    name: "4",
    title: "Table 4: simulators",
    about: "GRPO against different engines; the evaluation always has the real one.",
    paper: "Table 4, Qwen-2.5-3B-Base; simulators of 3B, 7B, 14B",
    rows: &[
        row("no training", "base", "8.82"),
        row("no engine (R1)", "r1", "18.54 (Table 3)"),
        row("prompted simulator", "prompted_simulator", "29.44, 31.39, 31.50"),
        row("fine-tuned simulator", ZEROSEARCH, "30.47, 33.53, 34.47"),
        row("fine-tuned simulator of half the size", "smaller_simulator", ""),
        row("real engine (Search-R1)", "search_r1", "32.81"),
    ],
    claims: &[
        claim(
            "tuned_prompted",
            "the fine-tuned simulator ends above the prompted one",
            ZEROSEARCH,
            "prompted_simulator",
            "30.47 > 29.44, 33.53 > 31.39, 34.47 > 31.50",
        ),
        claim(
            "tuned_smaller",
            "the fine-tuned simulator ends above the one of half its size",
            ZEROSEARCH,
            "smaller_simulator",
            "33.53 > 30.47, 34.47 > 33.53",
        ),
        claim(
            "tuned_real",
            "the fine-tuned simulator ends above the real engine",
            ZEROSEARCH,
            "search_r1",
            "14B 34.47 > 32.81, 7B 33.53 > 32.81; 3B the opposite, 30.47 < 32.81",
        ),
        claim(
            "prompted_base",
            "the prompted simulator ends above no training",
            "prompted_simulator",
            "base",
            "29.44 > 8.82",
        ),
    ],
};

const DEFECTS: Table = Table {
    name: "defects",
    title: "Defects",
    about: "Mistakes of released implementations, each switched on by itself in the run of the first row.",
    paper: "Table 7, LLaMA-3.2-3B-Base",
    rows: &[
        row("none", ZEROSEARCH, "36.07"),
        row("document tokens in the loss", "document_tokens", "34.53"),
        row("containment as reward", "containment", ""),
        row("simulator told the question and answer of another row", "other_context", ""),
        row("KL subtracted from the loss", "kl_subtracted", ""),
        row("groups of size 1", "groups_of_one", ""),
    ],
    claims: &[
        claim(
            "without_document_tokens",
            "the policy's tokens alone end above all tokens in the loss",
            ZEROSEARCH,
            "document_tokens",
            "36.07 > 34.53",
        ),
        claim("without_containment", "F1 as reward ends above containment", ZEROSEARCH, "containment", ""),
        claim(
            "without_other_context",
            "its own context ends above that of another row",
            ZEROSEARCH,
            "other_context",
            "",
        ),
        claim("without_kl_subtracted", "KL added ends above KL subtracted", ZEROSEARCH, "kl_subtracted", ""),
        claim(
            "without_groups_of_one",
            "groups of all samples end above groups of size 1",
            ZEROSEARCH,
            "groups_of_one",
            "",
        ),
    ],
};

const METHODS: Table = Table {
    name: "3",
    title: "Table 3: methods",
    about: "Every method with the same base model, engine and budget. The paper's untrained methods have an instruction-tuned model.",
    paper: "Table 3, Qwen-2.5-3B-Base/Instruct",
    rows: &[
        row("direct answer", "direct", "15.00"),
        row("CoT", "cot", "14.69"),
        row("RAG", "rag", "25.09"),
        row("RA-Agent", "ra_agent", "13.66"),
        row("Search-o1", "search_o1", "17.23"),
        row("IRCoT", "ircot", ""),
        row("base policy, searching", "base", "8.82 (Table 4)"),
        row("R1", "r1", "18.54"),
        row("Search-R1", "search_r1", "32.81"),
        row("rejection-sampling SFT, fine-tuned simulator", "rejection_sft", ""),
        row("ZeroSearch, prompted simulator", "prompted_simulator", "29.44 (Table 4)"),
        row("ZeroSearch, fine-tuned simulator", ZEROSEARCH, "34.47"),
    ],
    claims: &[
        claim("zerosearch_search_r1", "ZeroSearch ends above Search-R1", ZEROSEARCH, "search_r1", "34.47 > 32.81"),
        claim("search_r1_r1", "Search-R1 ends above R1", "search_r1", "r1", "32.81 > 18.54"),
        claim("zerosearch_rag", "ZeroSearch ends above RAG", ZEROSEARCH, "rag", "34.47 > 25.09"),
        claim("zerosearch_search_o1", "ZeroSearch ends above Search-o1", ZEROSEARCH, "search_o1", "34.47 > 17.23"),
        claim("rag_direct", "RAG ends above a direct answer", "rag", "direct", "25.09 > 15.00"),
        claim("zerosearch_rejection", "ZeroSearch ends above rejection-sampling SFT", ZEROSEARCH, "rejection_sft", ""),
    ],
};

const PLAIN: Table = Table {
    name: "plain",
    title: "Without a wrong habit",
    about: "The shipped base policy stops at the first name that it finds, which is soon unlearnt. This one is that policy after 400 more steps of \
            pretraining on demonstrations none of which guesses or stops early: it can follow a chain to its end already, and what is left to learn is \
            a better use of documents.",
    paper: "the paper has none",
    rows: &[
        row("no training", "plain_base", ""),
        row("ZeroSearch, fine-tuned simulator", "plain_zerosearch", ""),
        row("real engine (Search-R1)", "plain_search_r1", ""),
    ],
    claims: &[
        claim("plain_zerosearch_base", "ZeroSearch ends above no training", "plain_zerosearch", "plain_base", ""),
        claim("plain_search_r1_base", "Search-R1 ends above no training", "plain_search_r1", "plain_base", ""),
    ],
};

/// The table whose columns are of cost.
pub(crate) const COST: Table = Table {
    name: "8",
    title: "Table 8: cost",
    about: "The searches of a training run, and what they would cost at the paper's prices. The simulator here is a small model on a CPU: its \
            hours say what an A100 would cost for as long, not how long it would need.",
    paper: "Table 8, US dollars",
    rows: &[
        row("fine-tuned simulator", ZEROSEARCH, "17.7 (3B), 35.4 (7B), 70.8 (14B)"),
        row("prompted simulator", "prompted_simulator", ""),
        row("real engine (Search-R1)", "search_r1", "586.7 (Google)"),
    ],
    claims: &[],
};

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn claims_speak_of_rows_and_have_names_of_their_own() {
        let names: Vec<&str> = TABLES.iter().flat_map(|table| table.claims).map(|claim| claim.name).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
        for table in &TABLES {
            let experiments: Vec<&str> = table.experiments().collect();
            for claim in table.claims {
                assert!(experiments.contains(&claim.better) && experiments.contains(&claim.worse), "{}", claim.name);
            }
        }
    }

    #[test]
    fn cells_of_the_paper_run_first_and_a_seed_is_whole_before_the_next() {
        let cells = Table::named("6").unwrap().cells(2);
        let expected = [ZEROSEARCH, "random"].map(|name| (name, 0)).into_iter();
        let expected = expected.chain([ZEROSEARCH, "random"].map(|name| (name, 1)));
        let expected = expected.chain(["reversed", "adaptive"].map(|name| (name, 0)));
        let expected: Vec<_> = expected.chain(["reversed", "adaptive"].map(|name| (name, 1))).collect();
        assert_eq!(cells, expected);
    }
}
