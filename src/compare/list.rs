//! Lists on the command line, whose items may be TOML values with commas in them.

/// The items between commas that stand outside brackets and quotes, without
/// the blanks around them; nothing for a text that is blank.
pub(super) fn split(text: &str) -> Vec<String> {
    if text.trim().is_empty() {
        return Vec::new();
    }
    let mut items = vec![String::new()];
    let (mut depth, mut quote) = (0_u32, None);
    for character in text.chars() {
        match (quote, character) {
            (None, ',') if depth == 0 => {
                items.push(String::new());
                continue;
            }
            (None, '"' | '\'') => quote = Some(character),
            (Some(open), _) if open == character => quote = None,
            (None, '[' | '{' | '(') => depth += 1,
            (None, ']' | '}' | ')') => depth = depth.saturating_sub(1),
            _ => {}
        }
        if let Some(item) = items.last_mut() {
            item.push(character);
        }
    }
    items.iter().map(|item| item.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn commas_inside_values_are_theirs() {
        assert_eq!(split("15s, 30s,60s"), ["15s", "30s", "60s"]);
        assert_eq!(
            split("[1, [2, 3]],{ a = 1, b = 2 }"),
            ["[1, [2, 3]]", "{ a = 1, b = 2 }"]
        );
        assert_eq!(split(r#""a,b",'c,"d'"#), [r#""a,b""#, r#"'c,"d'"#]);
        assert_eq!(split("a,,b,"), ["a", "", "b", ""]);
        assert_eq!(split("  "), [""; 0]);
    }

    #[test]
    fn what_is_never_closed_is_one_item() {
        assert_eq!(split("[1, 2"), ["[1, 2"]);
        assert_eq!(split("\"a, b"), ["\"a, b"]);
        assert_eq!(split("], b"), ["]", "b"]);
    }
}
