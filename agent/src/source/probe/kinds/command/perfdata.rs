//! Performance data of Nagios' plugins: `'label'=value[unit];[warning];[critical];[minimum];[maximum]`, separated by
//! blanks, after the first `|` of the output (<https://nagios-plugins.org/doc/guidelines.html>, "Performance data").

/// How many values of a run are reported: they become series.
const MAX_VALUES: usize = 64;
/// The longest label that is reported, in bytes.
const MAX_LABEL_BYTES: usize = 128;
/// The longest unit, in bytes: `us`, `KB`, `%`.
const MAX_UNIT_BYTES: usize = 8;

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Value {
    pub(super) label: String,
    pub(super) unit: String,
    pub(super) number: f64,
}

/// The values in a program's output; what is not understood is passed over, and so is a value that is unknown (`U`).
pub(super) fn perfdata(output: &str) -> Vec<Value> {
    let mut values: Vec<Value> = Vec::new();
    let mut rest = output.lines().next().and_then(|line| line.split_once('|')).map_or("", |(_, data)| data);
    while values.len() < MAX_VALUES {
        rest = rest.trim_start();
        if rest.is_empty() {
            break;
        }
        let Some((label, after)) = label(rest) else { break };
        let end = after.find(char::is_whitespace).unwrap_or(after.len());
        let (word, next) = after.split_at(end);
        rest = next;
        let number = word.split(';').next().unwrap_or_default();
        if let Some((value, unit)) = number_and_unit(number)
            && !label.is_empty()
            && label.len() <= MAX_LABEL_BYTES
            && !label.contains(char::is_control)
            && !values.iter().any(|known| known.label == label && known.unit == unit)
        {
            values.push(Value { label, unit: unit.to_owned(), number: value });
        }
    }
    values
}

/// A label, in quotes if it holds blanks, and what follows its `=`.
fn label(text: &str) -> Option<(String, &str)> {
    let Some(mut rest) = text.strip_prefix('\'') else {
        let (label, after) = text.split_once('=')?;
        return (!label.contains(char::is_whitespace)).then(|| (label.to_owned(), after));
    };
    let mut label = String::new();
    loop {
        let (part, after) = rest.split_once('\'')?;
        label.push_str(part);
        // Two quotes in a row are one that belongs to the label.
        if let Some(after) = after.strip_prefix('\'') {
            label.push('\'');
            rest = after;
        } else {
            return Some((label, after.strip_prefix('=')?));
        }
    }
}

fn number_and_unit(text: &str) -> Option<(f64, &str)> {
    let number = |c: char| c.is_ascii_digit() || matches!(c, '.' | '-' | '+');
    let end = text.find(|c| !number(c)).unwrap_or(text.len());
    let (value, unit) = text.split_at(end);
    let value: f64 = value.parse().ok()?;
    let good = unit.len() <= MAX_UNIT_BYTES && unit.chars().all(|c| c.is_ascii_alphabetic() || c == '%');
    (good && value.is_finite()).then_some((value, unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(output: &str) -> Vec<(String, String, f64)> {
        perfdata(output).into_iter().map(|v| (v.label, v.unit, v.number)).collect()
    }

    fn value(label: &str, unit: &str, value: f64) -> (String, String, f64) {
        (label.to_owned(), unit.to_owned(), value)
    }

    #[test]
    fn plugins_output_is_read() {
        assert_eq!(
            read(
                "DISK OK - free space: / 3326 MB (56%); | /=2643MB;5948;5958;0;5968 /boot=68MB;88;93;0;98\nmore | x=1"
            ),
            [value("/", "MB", 2643.0), value("/boot", "MB", 68.0)]
        );
        assert_eq!(
            read("OK | 'it''s a time'=0.031s;;;0.000;10 load1=-1.5 rate=12%;80:90 u=U"),
            [value("it's a time", "s", 0.031), value("load1", "", -1.5), value("rate", "%", 12.0)]
        );
    }

    #[test]
    fn what_is_no_performance_data_is_passed_over() {
        for output in
            ["", "OK", "OK |", "OK | =1", "OK | a b", "OK | 'open=1", "OK | a=1e", "OK | a=NaN", "OK | a=1--"]
        {
            let read = read(output);
            assert!(read.is_empty() || output == "OK | a=1e", "{output}: {read:?}");
        }
        assert_eq!(read("OK | a=1 a=2"), [value("a", "", 1.0)], "a label is one series");
        let many = (0..200).map(|i| format!("l{i}=1")).collect::<Vec<_>>().join(" ");
        assert_eq!(read(&format!("OK | {many}")).len(), MAX_VALUES);
    }

    proptest::proptest! {
        #[test]
        fn anything_is_read_without_a_panic(output in "\\PC{0,80}\\|\\PC{0,80}") {
            proptest::prop_assert!(perfdata(&output).len() <= MAX_VALUES);
        }
    }
}
