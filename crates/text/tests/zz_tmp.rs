#[test]
fn save_it() {
    let special = zerosearch_text::SpecialTokens {
        bos: Some("<|begin|>".into()),
        eos: Some("<|end|>".into()),
        pad: Some("<|end|>".into()),
    };
    let texts = std::fs::read_to_string("/work/shared/DESIGN.md").unwrap();
    let start = std::time::Instant::now();
    let codec =
        zerosearch_text::train_bpe(texts.lines().map(str::to_owned), 1500, &["<answer>", "</answer>"], &special)
            .unwrap();
    eprintln!("trained {:?}", start.elapsed());
    codec.save(std::path::Path::new("/tmp/textfolder")).unwrap();
    let text = "<answer> Zürich 2024's 東京 </answer><|end|>  <|begin|>x\n\n ok";
    std::fs::write("/tmp/textfolder/ids.json", format!("{:?}", codec.encode(text))).unwrap();
    let files: Vec<_> = ["/work/shared/data"]
        .iter()
        .flat_map(|d| std::fs::read_dir(d).unwrap())
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "jsonl"))
        .collect();
    let big: Vec<String> = files
        .iter()
        .flat_map(|p| std::fs::read_to_string(p).unwrap().lines().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let mut first = None;
    for _ in 0..3 {
        let start = std::time::Instant::now();
        let codec =
            zerosearch_text::train_bpe(big.iter().cloned(), 4096, &["<answer>", "</answer>"], &special).unwrap();
        eprintln!("{} texts, trained {:?}", big.len(), start.elapsed());
        codec.save(std::path::Path::new("/tmp/textfolder2")).unwrap();
        let bytes = std::fs::read("/tmp/textfolder2/tokenizer.json").unwrap();
        assert!(*first.get_or_insert_with(|| bytes.clone()) == bytes);
    }
    let big = &big[..2000.min(big.len())];
    let tokens: Vec<u32> = big.iter().flat_map(|t| codec.encode(t)).collect();
    let start = std::time::Instant::now();
    let mut s = zerosearch_text::StopScanner::new(&codec, &["</search>", "</answer>"]);
    let n = tokens.iter().filter(|t| s.push(**t).is_some()).count();
    eprintln!("scan {n} of {} tokens: {:?}", tokens.len(), start.elapsed());
}
