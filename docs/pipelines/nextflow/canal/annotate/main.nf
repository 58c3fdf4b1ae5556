// Not tested: Nextflow was not to be had where this was written. The command is that of the Snakemake wrapper, which is.
process CANAL_ANNOTATE {
    tag "$meta.id"
    label 'process_low'

    conda "${moduleDir}/environment.yml"
    container "canal:0.2.0"

    input:
    tuple val(meta), path(cells)
    path model

    output:
    tuple val(meta), path("${prefix}.h5ad"), emit: h5ad
    path "versions.yml"                    , emit: versions

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    prefix = task.ext.prefix ?: "${meta.id}_annotated"
    """
    OMP_NUM_THREADS=${task.cpus} canal annotate \\
        --model ${model} \\
        --data ${cells} \\
        --out ${prefix}.h5ad \\
        ${args}

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        canal: \$(canal version | sed 's/^canal //')
    END_VERSIONS
    """

    stub:
    prefix = task.ext.prefix ?: "${meta.id}_annotated"
    """
    touch ${prefix}.h5ad
    touch versions.yml
    """
}
