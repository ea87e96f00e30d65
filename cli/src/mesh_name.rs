//! Names for meshes that people can say on the telephone: an adjective and an animal.

const ADJECTIVES: [&str; 64] = [
    "amber", "apt", "bold", "brave", "bright", "brisk", "calm", "civil", "clear", "clever", "cosy", "crisp",
    "deft", "eager", "early", "fair", "fast", "fine", "firm", "fleet", "fond", "frank", "fresh", "gentle",
    "glad", "golden", "grand", "green", "happy", "hardy", "honest", "humble", "jolly", "keen", "kind",
    "lively", "loyal", "lucky", "mellow", "merry", "mild", "modest", "neat", "nimble", "noble", "patient",
    "plain", "polite", "proud", "quick", "quiet", "rapid", "ready", "silver", "sleek", "smart", "snug",
    "solid", "steady", "sunny", "swift", "tidy", "warm", "wise",
];

const ANIMALS: [&str; 64] = [
    "badger", "bat", "bear", "beaver", "bee", "bison", "boar", "bream", "camel", "carp", "cat", "crane",
    "crow", "deer", "dove", "duck", "eagle", "elk", "falcon", "finch", "fox", "frog", "goat", "goose",
    "grebe", "hare", "hawk", "hedgehog", "heron", "horse", "ibex", "jackdaw", "jay", "kite", "lark", "lion",
    "lizard", "llama", "lynx", "magpie", "marten", "mole", "moose", "mouse", "newt", "otter", "owl", "perch",
    "pike", "pony", "rabbit", "raven", "robin", "salmon", "seal", "sheep", "snail", "sparrow", "spider",
    "squirrel", "stork", "swan", "trout", "wren",
];

/// The name for two random bytes.
pub fn of(seed: [u8; 2]) -> String {
    let [adjective, animal] = seed.map(|byte| usize::from(byte % 64));
    format!("{}-{}", ADJECTIVES[adjective], ANIMALS[animal])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_word_is_there_once() {
        assert_eq!(ADJECTIVES.iter().collect::<BTreeSet<_>>().len(), ADJECTIVES.len());
        assert_eq!(ANIMALS.iter().collect::<BTreeSet<_>>().len(), ANIMALS.len());
        assert_eq!(of([50, 20]), "quiet-fox");
        assert_eq!(of([255, 255]), of([63, 63]));
    }
}
