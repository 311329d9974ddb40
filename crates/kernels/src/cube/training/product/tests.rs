//! Products against f64, however factors lie, and against the generator's, to the bit.

use half::bf16;

use super::super::super::{Linear, LinearOutput, LinearParts};
use super::super::testing::{draw, gpu, read, tensor, tensor_cores};
use super::*;

/// Numbers `[rows, columns]` in a GPU's memory, and as they are there.
struct Matrix {
    tensor: GpuTensor,
    values: Vec<f32>,
    shape: [usize; 2],
}

impl Matrix {
    fn draw(seed: u64, shape: [usize; 2], in_bf16: bool) -> Self {
        let values = draw(seed, shape[0] * shape[1], 2.0, in_bf16);
        let mut tensor = tensor(&values, shape);
        if in_bf16 {
            // Of a device without that type, too: its kernels take words.
            let mut bytes: Vec<u8> =
                values.iter().flat_map(|value| bf16::from_f32(*value).to_bits().to_le_bytes()).collect();
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            let handle = tensor.client.create_from_slice(&bytes);
            tensor = GpuTensor::new_contiguous(
                tensor.client.clone(),
                tensor.device.clone(),
                shape.into(),
                handle,
                DType::BF16,
            );
        }
        Self { tensor, values, shape }
    }

    /// A number of a vector of the factor.
    fn at(&self, vector: usize, input: usize, transposed: bool) -> f32 {
        if transposed {
            self.values[input * self.shape[1] + vector]
        } else {
            self.values[vector * self.shape[1] + input]
        }
    }
}

/// Paths of products with weights in f32 and in bf16, as the device has them.
fn paths() -> Vec<ProductPath> {
    std::iter::once(ProductPath::Units).chain(tensor_cores()).collect()
}

#[test]
fn products_of_factors_however_they_lie() {
    // Rows, columns, inputs.
    let shapes = [[5, 33, 7], [130, 70, 40], [300, 68, 36], [16, 12, 3000]];
    for path in paths() {
        for [row_count, column_count, inner] in shapes {
            for (layouts, in_bf16) in [
                ([false, false], [false, false]),
                ([false, true], [true, true]),
                ([true, true], [false, false]),
                ([true, false], [true, false]),
            ] {
                // Only kernels of tensor cores read brain floats on every device.
                if path == ProductPath::Units && in_bf16 != [false, false] {
                    continue;
                }
                let of = |seed, vectors, index: usize| {
                    let shape = if layouts[index] { [inner, vectors] } else { [vectors, inner] };
                    Matrix::draw(seed, shape, in_bf16[index])
                };
                let (rows, columns) = (of(1, row_count, 0), of(2, column_count, 1));
                let factor = |matrix, index: usize| Factor { matrix, transposed: layouts[index] };
                // Parts are added by a kernel that stores brain floats as such.
                let narrow = in_bf16 == [true, true] && column_count % 4 == 0 && inner < PART;
                let dtype = if narrow { DType::BF16 } else { DType::F32 };
                let found = product(
                    path,
                    factor(&rows.tensor, 0),
                    factor(&columns.tensor, 1),
                    Sums::Any,
                    Destination::New(dtype),
                );
                let found = read(&found);
                let rounded = |value: f32| {
                    f64::from(if path == ProductPath::Units { value } else { bf16::from_f32(value).to_f32() })
                };
                for (place, found) in found.iter().enumerate() {
                    let (row, column) = (place / column_count, place % column_count);
                    let terms = (0..inner).map(|input| {
                        rounded(rows.at(row, input, layouts[0])) * rounded(columns.at(column, input, layouts[1]))
                    });
                    let (expected, size) =
                        terms.fold((0.0, 1.0), |(sum, size), term| (sum + term, size + f64::abs(term)));
                    let bound = size * if dtype == DType::BF16 { 4e-3 } else { 1e-6 };
                    assert!(
                        (f64::from(*found) - expected).abs() < bound,
                        "{path:?}, {row_count} × {column_count} × {inner}, {layouts:?}, {in_bf16:?}, {row}, {column}: \
                         {found} for {expected}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_forward_product_is_the_generators_to_the_bit() {
    let gpu = gpu();
    for path in paths() {
        let in_bf16 = path != ProductPath::Units;
        // Slices are one, two and eight.
        for (rows, outer, inner, beside) in
            [(70, 40, 100, 0), (9, 33, 530, 50), (131, 20, 75, 13_000), (20, 24, 200, 30_000)]
        {
            let (x, weight) = (Matrix::draw(3, [rows, inner], false), Matrix::draw(4, [outer, inner], in_bf16));
            let outputs = outer + beside;
            let linear = Linear::on(&gpu, path, inner, outputs, LinearParts::Stacked, in_bf16);
            linear.fill(&gpu, &[&gpu.upload(&weight.values)]);
            let (out, memory) = (gpu.zeros(rows * outputs), Linear::rounded(&gpu, rows, inner));
            linear.forward(&gpu, &gpu.upload(&x.values), rows, LinearOutput::Store, &memory, &out);
            let decoded: Vec<f32> =
                gpu.read(&out).unwrap().chunks(outputs).flat_map(|row| row[..outer].to_vec()).collect();
            let (x, weight) = (Factor::plain(&x.tensor), Factor::plain(&weight.tensor));
            let trained = product(path, x, weight, Sums::Generator { outputs }, Destination::New(DType::F32));
            assert_eq!(read(&trained), decoded, "{path:?}, {rows} × {outer} × {inner} among {outputs}");
        }
    }
}
